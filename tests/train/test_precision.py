"""Half-width numbers: who gets which, and scaled gradients that change nothing but what would have been lost."""

from typing import Any

import pytest
import torch
from tiny_training import SIZE, scenes, tiny_network, training
from torch import Tensor, nn

from yolo_dist.data.shards import ShardSet
from yolo_dist.train import precision
from yolo_dist.train.loop import Trainer
from yolo_dist.train.optimizer import OptimizerConfig, build_optimizer
from yolo_dist.train.precision import Autocast, Precision, bfloat16_is_fast

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True, "neon": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_fast_where_the_processor_has_instructions_for_it(
    capabilities: dict[str, Any], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bfloat16_is_fast(torch.device("cpu")) is fast


def test_a_torch_that_cannot_tell_gets_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not bfloat16_is_fast(torch.device("cpu"))
    assert not bfloat16_is_fast(torch.device("meta"))


@pytest.mark.parametrize(
    ("autocast", "bfloat16", "capability", "name"),
    [
        pytest.param("auto", True, (8, 0), "bfloat16", id="Ampere"),
        pytest.param("auto", False, (7, 5), "float16", id="Turing"),
        pytest.param("auto", False, (7, 0), "float16", id="Volta"),
        pytest.param("auto", False, (6, 1), "float32", id="Pascal, slower in halves"),
        (True, True, (8, 0), "bfloat16"),
        (True, False, (7, 5), "float16"),
        (True, False, (6, 1), "bfloat16"),
        (False, True, (8, 0), "float32"),
        ("float16", True, (8, 0), "float16"),
        ("bfloat16", False, (7, 5), "bfloat16"),
    ],
)
def test_a_gpu_computes_in_what_it_is_fast_in(
    autocast: Autocast, bfloat16: bool, capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    asked: list[tuple[str, bool]] = []  # of a scaler that does not look for the GPU
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: asked.append((device, enabled)))
    assert Precision(autocast, GPU).name == name
    assert asked == [("cuda", name == "float16")]


@pytest.mark.parametrize("fast", [True, False])
def test_a_processor_takes_half_numbers_only_where_they_are_fast(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_is_fast", lambda _: fast)
    names = [Precision(autocast, CPU).name for autocast in ("auto", True, False, "float16", "bfloat16")]
    assert names == ["bfloat16" if fast else "float32", "bfloat16", "float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"))


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def gammas(network: nn.Module) -> Tensor:
    return torch.cat([norm.weight.detach() for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)])


def one_step(loss: float, trained: Precision, optimizer: torch.optim.SGD, layer: nn.Linear) -> None:
    """A step with a gradient of `loss` for each of two weights."""
    trained.backward(layer(torch.full((1, 2), loss)).sum())
    trained.unscale(optimizer)
    trained.step(optimizer)
    optimizer.zero_grad()


def a_layer(**config: Any) -> tuple[nn.Linear, torch.optim.SGD]:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.ones_(layer.weight)
    return layer, build_optimizer(layer, OptimizerConfig(learning_rate=0.5, weight_decay=0, **config))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_scaled_steps_are_those_without_a_scale(momentum: float) -> None:
    found = []
    for autocast in ("float16", False):
        layer, optimizer = a_layer(momentum=momentum)
        for loss in (0.25, -0.5, 0.125):
            one_step(loss, Precision(autocast, CPU), optimizer, layer)
        found.append(weights(layer))
    assert torch.equal(*found)


def test_an_infinite_gradient_costs_a_step_and_halves_the_scale() -> None:
    """In the very first step too, where momentum would be made of whatever lies in memory."""
    layer, optimizer = a_layer(momentum=0.9)
    scaled = Precision("float16", CPU)
    scale = scaled.state()["scale"]
    one_step(float("inf"), scaled, optimizer, layer)
    assert weights(layer).tolist() == [1, 1]
    assert optimizer.state[layer.weight]["momentum_buffer"].tolist() == [[0, 0]]
    assert scaled.state()["scale"] == scale / 2

    one_step(0.5, scaled, optimizer, layer)  # from rest: Nesterov moves by rate · gradient · (1 + momentum)
    assert weights(layer).tolist() == pytest.approx([1 - 0.5 * 0.5 * 1.9] * 2)
    assert scaled.state()["scale"] == scale / 2


def test_the_scale_goes_on_where_it_was() -> None:
    layer, optimizer = a_layer()
    first, second = Precision("float16", CPU), Precision("float16", CPU)
    one_step(float("inf"), first, optimizer, layer)
    second.restore(first.state())
    assert second.state() == first.state() != Precision("float16", CPU).state()
    plain = Precision(False, CPU)
    plain.restore(first.state())
    assert plain.state() == {}


@pytest.mark.parametrize("kind", [{"freeze": 2}, {"optimizer": {"momentum": 0}}])
def test_parameters_without_momentum_are_kept_and_gone_on_with(kind: dict[str, Any], shards: ShardSet) -> None:
    first, second = (Trainer(tiny_network(), shards, training(autocast="float16", **kind), SIZE) for _ in range(2))
    first.run_epoch()
    second.restore(first.state())
    assert first.run_epoch().loss == second.run_epoch().loss
    assert torch.equal(weights(first.network), weights(second.network))


@pytest.mark.parametrize("kind", [{}, {"sparsity": {"factor": 0.1}}])
def test_training_in_float16_comes_near_to_float32(kind: dict[str, Any], shards: ShardSet) -> None:
    """Gradients are brought to their size before the penalty is added, or it would be lost in the scale."""
    full = Trainer(tiny_network(), shards, training(autocast=False, epochs=3, **kind), SIZE)
    half = Trainer(tiny_network(), shards, training(autocast="float16", epochs=3, **kind), SIZE)
    half.precision.restore(half.precision.state() | {"scale": 256.0})  # no step is left out
    losses = [[trainer.run_epoch().loss["total"] for _ in range(3)] for trainer in (full, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert half.precision.state()["scale"] == 256
    for part in (weights, gammas):
        expected, moved = (part(trainer.network) - part(tiny_network()) for trainer in (full, half))
        assert (moved - expected).norm() < 0.2 * expected.norm()  # roundings, of few images a batch


def test_steps_that_are_left_out_leave_the_network_as_it_was(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(autocast="float16"), SIZE)
    trainer.precision.restore(trainer.precision.state() | {"scale": 2.0**60})
    trainer.run_epoch()
    assert torch.equal(weights(trainer.network), weights(tiny_network()))
    assert trainer.precision.state()["scale"] == 2.0**58
