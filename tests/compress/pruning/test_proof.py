"""Pruning as a whole: proof, and what the proof catches."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.graph import ChannelGraph
from yolo_dist.compress.pruning import PruneConfig, prune
from yolo_dist.compress.pruning.carry_out import carry_out
from yolo_dist.compress.pruning.proof import TOLERANCE, compare_outputs, weight_bytes
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.pruning.surgery import cut
from yolo_dist.compress.sparsity import batch_norm
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Convolutional, Dropout, Maxpool, Route, Shortcut
from yolo_dist.darknet.layers import Convolution
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_macs, count_parameters
from yolo_dist.darknet.weights import save_weights, weights_bytes
from yolo_dist.errors import NonFiniteOutput, ProofError, PruneError

SIZE = (32, 32)
FORCED = PruneConfig(percent=0.5, force=True)
REESTIMATED = FORCED.model_copy(update={"reestimate_images": 4})


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


def test_a_target_latency_is_in_the_proof_beside_the_one_measured(network: Network) -> None:
    proof = prune(network, PruneConfig(target_latency_ms=1e3, force=True), random_images(), SIZE).proof
    assert proof.target_latency_ms == 1e3
    assert 0 < proof.latency_ms.after < 1e3


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
        compare_outputs(network, compact, graph, kept, random_images())
    with pytest.raises(NonFiniteOutput, match="its weights are useless"):
        compare_outputs(
            compact, compact, ChannelGraph.from_cfg(compact.cfg), np.ones(len(kept), np.bool_), random_images()
        )


def test_the_proof_says_when_only_float64_tells_rounding_from_a_mistake() -> None:
    """Outputs of a million are rounded to multiples of 1/16 in float32."""
    network = random_network(conv(16, 3), conv(64, 3), conv(64, 3), *head())
    small = prune(network, FORCED, random_images(), SIZE).proof
    assert (small.precision, small.float32_difference) == ("float32", small.max_abs_difference)
    network.get_parameter("layers.3.conv.weight").data *= 1e6
    large = prune(network, FORCED, random_images(), SIZE).proof
    assert large.precision == "float64"
    assert large.max_abs_difference <= large.tolerance < large.float32_difference
    assert {"precision", "float32_difference"} <= json.loads(str(large)).keys()


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


def test_a_single_image_whose_maps_are_single_pixels_has_no_variance() -> None:
    network = random_network(conv(4, 3, 2), conv(2), *head())
    with pytest.raises(PruneError, match="one image has maps of one pixel, and so no variance"):
        reestimate_batchnorm(network, [random_images(2, (2, 2)), random_images(1, (2, 2))])


def test_nothing_is_proved_without_images(network: Network) -> None:
    with pytest.raises(PruneError, match="give at least one"):
        prune(network, FORCED, random_images()[:0], SIZE)


@pytest.mark.parametrize("compensate", [True, False])
def test_pruning_measures_statistics_anew_where_asked(network: Network, compensate: bool) -> None:
    images, batches = random_images(), [random_images(4, seed=8)]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    config = REESTIMATED.model_copy(update={"compensate": compensate})
    anew, left = prune(network, config, images, SIZE, batches), prune(network, FORCED, images, SIZE)
    by_hand = left.network
    reestimate_batchnorm(by_hand, batches)
    assert torch.equal(_mean(anew.network, 0), _mean(by_hand, 0))
    assert anew.proof.max_abs_difference <= TOLERANCE
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_proof_is_about_the_network_after_re_estimation(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(compact: Network, batches: list[Tensor]) -> None:
        reestimate_batchnorm(compact, batches)
        batch_norm(compact, 0).bias.data[0] += 1

    monkeypatch.setattr(sys.modules[prune.__module__], "reestimate_batchnorm", careless)
    with pytest.raises(ProofError, match="nothing was written"):
        prune(network, REESTIMATED, random_images(), SIZE, [random_images(4, seed=8)])


def test_images_that_are_no_numbers_leave_no_network(network: Network) -> None:
    batch = random_images(4)
    batch[2, 0, 5, 5] = float("nan")
    with pytest.raises(PruneError, match=r"layer 0 .*not finite; look for the training image that gives such"):
        prune(network, REESTIMATED, random_images(), SIZE, [batch])


def test_the_proof_is_about_the_network_that_its_files_give(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(written: Network) -> bytes:
        data = bytearray(weights_bytes(written))
        data[-4:] = struct.pack("<f", 100.0)
        return bytes(data)

    monkeypatch.setattr("yolo_dist.darknet.weights.weights_bytes", damaged)
    with pytest.raises(ProofError, match="nothing was written"):
        prune(network, FORCED, random_images(), SIZE)


def test_weight_bytes_are_those_of_the_file(network: Network, tmp_path: Path) -> None:
    save_weights(network, tmp_path / "model.weights")
    assert weight_bytes(network) == (tmp_path / "model.weights").stat().st_size


def _mean(network: Network, layer: int) -> Tensor:
    mean = batch_norm(network, layer).running_mean
    assert mean is not None
    return mean
