"""Pruning as a whole: readiness, proof, and what the proof catches."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig, check_ready, make_plan, prune
from yolo_dist.compress.pruning.carry_out import carry_out
from yolo_dist.compress.pruning.proof import TOLERANCE, largest_difference, weight_bytes
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.pruning.surgery import cut
from yolo_dist.compress.sparsity import absolute_gammas, batch_norm, prunable_share
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Convolutional, Dropout, Maxpool, Route, Shortcut
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.darknet.weights import save_weights
from yolo_dist.errors import NonFiniteOutput, NotSparseEnough, ProofError, PruneError

SIZE = (32, 32)
FORCED = PruneConfig(percent=0.5, force=True)


@pytest.fixture
def network() -> Network:
    return random_network(conv(16, 3), Maxpool(size=2, stride=2), conv(12, 3), conv(8), *head(classes=2))


@pytest.fixture
def sparse() -> Network:
    """About half of all γ are negligible, the others are large."""
    return random_network(conv(16, 3), conv(12, 3), conv(8), *head(), sparse=0.5, seed=2)


def filters(network: Network) -> dict[int, int]:
    return {index: layer.filters for index, layer in enumerate(network.cfg.layers) if isinstance(layer, Convolutional)}


def test_the_proof_says_what_was_measured_on_both_networks(network: Network, tmp_path: Path) -> None:
    images = random_images(3)
    result = prune(network, FORCED, images, SIZE)
    proof, compact = result.proof, result.network

    assert (proof.method, proof.percent, proof.threshold) == ("normal", 0.5, result.plan.threshold)
    assert proof.images == 3
    assert proof.max_abs_difference <= proof.tolerance == 1e-4
    for change, before, after in (
        (proof.parameters, count_parameters(network.cfg), count_parameters(compact.cfg)),
        (proof.macs, count_macs(network.cfg, SIZE), count_macs(compact.cfg, SIZE)),
    ):
        assert (change.before, change.after) == (before, after)
        assert after < before
    assert proof.latency_ms.before > 0
    assert proof.latency_ms.after > 0
    save_weights(compact, tmp_path / "compact.weights")
    assert proof.weight_bytes.after == (tmp_path / "compact.weights").stat().st_size


def test_channels_in_the_proof_are_the_filters_of_both_cfgs(network: Network) -> None:
    result = prune(network, FORCED, random_images(), SIZE)
    before, after = filters(network), filters(result.network)
    expected = [{"layer": i, "before": before[i], "after": after[i]} for i in before if before[i] != after[i]]
    assert list(result.proof.channels) == expected
    assert {layer: len(kept) for layer, kept in result.plan.keep.items()} == {i: after[i] for i in result.plan.keep}


def test_a_proof_prints_as_json_and_takes_accuracies_later(network: Network) -> None:
    proof = prune(network, FORCED, random_images(), SIZE).proof
    assert json.loads(str(proof))["map50"] is None
    written = json.loads(str(proof.with_map50(0.9, 0.8)))
    assert written["map50"] == {"before": 0.9, "after": 0.8}
    assert set(written["parameters"]) == {"before", "after"}


@pytest.mark.parametrize(
    ("request_", "silent"),
    [
        pytest.param({"method": "normal"}, True, id="channels went"),
        pytest.param({"method": "layer", "shortcuts": 1}, True, id="a block went"),
        pytest.param({"method": "layer", "percent": 0.4}, False, id="less than a block of two"),
        pytest.param({"method": "regular"}, False, id="layers of at most 16, rounded up to 32"),
        pytest.param({"method": "normal", "percent": 0.0}, False, id="nothing asked for"),
    ],
)
def test_a_request_that_cuts_nothing_says_so(request_: dict[str, object], silent: bool) -> None:
    block = (conv(4), conv(16), Shortcut(from_layer=-3))
    network = random_network(conv(16, 3), *block, *block, *head())
    pruned = prune(network, validate(PruneConfig, {**request_, "force": True}, "prune"), random_images(), SIZE)
    assert (pruned.warning is None) == silent == (pruned.network.cfg != network.cfg)


def test_the_network_that_is_cut_stays_as_it_was(network: Network) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    prune(network, FORCED, random_images(), SIZE)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def swapped_channels(network: Network, graph: ChannelGraph, kept: np.ndarray) -> Network:
    """Surgery by someone who mixed up two channels."""
    compact = cut(network, graph, kept)
    first = compact.layers[0]
    assert isinstance(first, Convolution)
    with torch.no_grad():
        first.conv.weight[[0, 1]] = first.conv.weight[[1, 0]]
    return compact


def test_the_proof_catches_a_wrong_surgery(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[carry_out.__module__], "cut", swapped_channels)
    with pytest.raises(ProofError, match=r"masked and the pruned network differ by .* nothing was written"):
        prune(network, FORCED, random_images(), SIZE)


def test_the_proof_catches_random_weights_behind_the_first_layer(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(network: Network, graph: ChannelGraph, kept: np.ndarray) -> Network:
        compact = cut(network, graph, kept)
        return Network(compact.cfg).eval()

    monkeypatch.setattr(sys.modules[carry_out.__module__], "cut", forgetful)
    with pytest.raises(ProofError):
        prune(network, FORCED, random_images(), SIZE)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_head_that_is_not_finite_is_no_proof(broken: int) -> None:
    """Whichever of the heads it is: NaN compares as neither larger nor smaller."""
    network = random_network(conv(6), *head(), Route(layers=0), *head())
    graph = ChannelGraph.from_cfg(network.cfg)
    kept = graph.kept_channels({0: np.arange(6) < 4})
    compact = cut(network, graph, kept)
    feeder = compact.layers[(1, 4)[broken]]
    assert isinstance(feeder, Convolution)
    assert feeder.conv.bias is not None
    with torch.no_grad():
        feeder.conv.bias[0] = float("nan")
    with pytest.raises(ProofError, match="differ by nan"):
        largest_difference(network, compact, graph, kept, random_images())
    with pytest.raises(NonFiniteOutput, match="its weights are useless"):
        largest_difference(
            compact, compact, ChannelGraph.from_cfg(compact.cfg), np.ones(len(kept), np.bool_), random_images()
        )


def test_a_network_with_ordinary_gammas_is_not_ready_and_says_to_what_it_is(network: Network) -> None:
    with pytest.raises(NotSparseEnough, match=r"percent 0.5 would cut \d+\.\d% of the summed .*--force"):
        prune(network, PruneConfig(percent=0.5), random_images(), SIZE)


def test_a_sparse_network_is_ready_to_the_percent_that_the_gauge_shows(sparse: Network) -> None:
    layers = list(ChannelGraph.from_cfg(sparse.cfg).convolutions())
    share = prunable_share(np.concatenate(list(absolute_gammas(sparse, layers).values())))
    ready = np.floor(share * 100) / 100
    assert ready > 0.3
    check_ready(sparse, make_plan(sparse, PruneConfig(percent=ready)))
    with pytest.raises(NotSparseEnough, match=f"ready to percent {ready:g}:"):
        check_ready(sparse, make_plan(sparse, PruneConfig(percent=ready + 0.2)))


def test_a_ready_network_needs_no_force(sparse: Network) -> None:
    result = prune(sparse, PruneConfig(percent=0.3), random_images(), SIZE)
    assert count_parameters(result.network.cfg) < count_parameters(sparse.cfg)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gammas_that_are_not_finite_are_refused_by_layer(network: Network, value: float) -> None:
    with torch.no_grad():
        batch_norm(network, 2).weight[3] = value
    with pytest.raises(PruneError, match=r"layer 2 .*has weights that are not finite"):
        prune(network, FORCED, random_images(), SIZE)


def test_compensation_can_be_left_out(sparse: Network) -> None:
    images = random_images()
    with torch.inference_mode():
        before = sparse(images)[0]
        mended, bare = (
            prune(sparse, PruneConfig(percent=0.3, compensate=compensate), images, SIZE).network(images)[0]
            for compensate in (True, False)
        )
    assert (mended - before).abs().mean() < (bare - before).abs().mean()


def test_reestimated_statistics_are_plain_averages_over_the_batches() -> None:
    network = random_network(conv(3), conv(2), *head())
    first = network.layers[0]
    assert isinstance(first, Convolution)
    batches = [random_images(2, seed=1), random_images(3, seed=2), random_images(2, seed=3)]
    with torch.no_grad():
        responses = [first.conv(batch).transpose(0, 1).flatten(1) for batch in batches]
    means = torch.stack([response.mean(dim=1) for response in responses]).mean(dim=0)
    variances = torch.stack([response.var(dim=1, correction=1) for response in responses]).mean(dim=0)

    reestimate_batchnorm(network, batches)

    norm = batch_norm(network, 0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == batch_norm(random_network(conv(3), *head()), 0).momentum
    assert not any(module.training for module in network.modules())


def test_reestimation_sees_the_network_without_dropout() -> None:
    network = random_network(conv(4), Dropout(probability=0.9), conv(2), *head())
    plain = random_network(conv(4), Dropout(probability=0.0), conv(2), *head())
    for one in (network, plain):
        reestimate_batchnorm(one, [random_images()])
    assert torch.equal(_mean(network, 2), _mean(plain, 2))


def test_reestimation_without_images_is_refused_rather_than_ruining_the_network(network: Network) -> None:
    before = _mean(network, 0).clone()
    with pytest.raises(PruneError, match="needs training images"):
        reestimate_batchnorm(network, [])
    assert torch.equal(_mean(network, 0), before)


def test_pruning_measures_statistics_anew_where_asked(network: Network) -> None:
    images, batches = random_images(), [random_images(4, seed=8)]
    config = FORCED.model_copy(update={"reestimate_images": 4})
    anew, left = prune(network, config, images, SIZE, batches), prune(network, FORCED, images, SIZE)
    by_hand = left.network
    reestimate_batchnorm(by_hand, batches)
    assert torch.equal(_mean(anew.network, 0), _mean(by_hand, 0))
    assert anew.proof.max_abs_difference <= TOLERANCE


def test_weight_bytes_are_those_of_the_file(network: Network, tmp_path: Path) -> None:
    save_weights(network, tmp_path / "model.weights")
    assert weight_bytes(network) == (tmp_path / "model.weights").stat().st_size


def _mean(network: Network, layer: int) -> Tensor:
    mean = batch_norm(network, layer).running_mean
    assert mean is not None
    return mean
