"""Evaluation: a public network on real images, and results that no number of workers changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from upath import UPath

from yolo_dist.darknet.cfg import read_cfg
from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.weights import load_weights
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.data.card import SplitSource, find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.scenes import SceneSettings
from yolo_dist.data.shards import ShardSet, open_split
from yolo_dist.errors import OutOfMemory
from yolo_dist.evaluate.evaluator import Evaluation, EvaluationConfig, Found, evaluate, predict
from yolo_dist.evaluate.samples import save_evaluation

SIZE = (320, 320)


@pytest.fixture(scope="module")
def coco(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    destination = tmp_path_factory.mktemp("coco")
    convert(find_card("coco2017"), shared_data / "coco", destination, "val")
    return open_split(destination, "val")


@pytest.fixture(scope="module")
def yolo_fastest(shared_data: Path) -> Network:
    network = Network(read_cfg(shared_data / "weights" / "yolo-fastest-1.1.cfg"))
    load_weights(network, shared_data / "weights" / "yolo-fastest-1.1.weights")
    return network


def evaluate_in_a_world_of(workers: int, network: Network, shards: ShardSet) -> Evaluation:
    """What rank 0 gets when as many workers as asked take their turns."""
    config = EvaluationConfig(batch_size=8)
    others: list[list[Found]] = [
        predict(network, shards, SIZE, config, rank=rank, world_size=workers) for rank in range(1, workers)
    ]
    evaluation = evaluate(network, shards, SIZE, config, rank=0, world_size=workers, gather=lambda own: [own, *others])
    assert evaluation is not None
    return evaluation


def test_a_public_network_reaches_its_published_accuracy_and_no_number_of_workers_changes_a_bit(
    yolo_fastest: Network, coco: ShardSet
) -> None:
    alone, *shared = [evaluate_in_a_world_of(workers, yolo_fastest, coco) for workers in (1, 2, 3)]

    # Another runtime reaches AP50 0.254 and AP 0.122 on these images without the detections under 0.2.
    assert alone.metrics.map50 >= 0.25
    assert alone.metrics.map >= 0.12
    for evaluation in shared:
        assert evaluation.metrics == alone.metrics
        for ours, theirs in zip(alone.detections, evaluation.detections, strict=True):
            assert np.array_equal(ours.xyxy, theirs.xyxy)
            assert np.array_equal(ours.scores, theirs.scores)
            assert np.array_equal(ours.labels, theirs.labels)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    destination = tmp_path_factory.mktemp("shapes")
    splits = {"val": SplitSource(generate=SceneSettings(images=6, seed=2))}
    convert(find_card("shapes").model_copy(update={"splits": splits}), "-", destination, "val")
    return open_split(destination, "val")


@pytest.fixture
def untrained() -> Network:
    network = Network(zoo_cfg("yolov3-tiny", classes=3, width=0.125))
    initialize(network, seed=0)
    return network


def test_every_module_gets_its_mode_back(untrained: Network, scenes: ShardSet) -> None:
    untrained.train()
    untrained.layers[0].eval()
    modes = [module.training for module in untrained.modules()]
    evaluate(untrained, scenes, (64, 64))
    assert [module.training for module in untrained.modules()] == modes


def test_evaluation_leaves_the_network_as_it_was(untrained: Network, scenes: ShardSet) -> None:
    untrained.train()
    before = {name: tensor.clone() for name, tensor in untrained.state_dict().items()}
    evaluate(untrained, scenes, (64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in untrained.state_dict().items())
    assert all(parameter.requires_grad for parameter in untrained.parameters())


def test_detections_lie_on_the_original_images(untrained: Network, scenes: ShardSet) -> None:
    evaluation = evaluate(untrained, scenes, (64, 96), EvaluationConfig(batch_size=4))
    assert evaluation is not None
    assert evaluation.metrics.images == len(evaluation.detections) == len(scenes) == 6
    for sample, found in zip(scenes, evaluation.detections, strict=True):
        assert len(found) > 0
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [sample.width, sample.height] * 2).all()
        assert (found.xyxy[:, :2] < found.xyxy[:, 2:]).all()


def test_only_the_first_worker_gets_the_metrics(untrained: Network, scenes: ShardSet) -> None:
    assert evaluate(untrained, scenes, (64, 64), rank=1, world_size=2, gather=lambda own: [[], own]) is None


def test_many_workers_need_a_gather(untrained: Network, scenes: ShardSet) -> None:
    with pytest.raises(ValueError, match="2 workers need a gather"):
        evaluate(untrained, scenes, (64, 64), world_size=2)


def test_lower_precision_still_decodes_finite_boxes(untrained: Network, scenes: ShardSet) -> None:
    evaluation = evaluate(untrained, scenes, (64, 64), autocast=torch.bfloat16)
    assert evaluation is not None
    assert all(found.xyxy.dtype == np.float32 and np.isfinite(found.xyxy).all() for found in evaluation.detections)


def test_a_picture_that_has_no_room_is_not_left_out_in_silence(
    untrained: Network, scenes: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _data: bytes) -> int:
        raise OSError("no room")

    evaluation = evaluate(untrained, scenes, (64, 64))
    assert evaluation is not None
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no room"):
        save_evaluation(evaluation, scenes, UPath(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def with_memory_for(images: int, network: Network) -> Network:
    """The network, on a machine whose allocator fails above so many images."""

    def allocate(_network: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if len(arguments[0]) > images:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    network.register_forward_pre_hook(allocate)
    return network


def test_a_worker_without_memory_for_a_batch_goes_on_with_half_of_it_and_the_others_need_not(
    untrained: Network, scenes: ShardSet
) -> None:
    """Five of six images in one batch, one in the other: nothing else than what is found shows who had to halve."""
    in_twos = predict(untrained, scenes, (64, 64), EvaluationConfig(batch_size=2))
    said: list[str] = []
    network, five = with_memory_for(2, untrained), EvaluationConfig(batch_size=5)
    found = [
        *predict(network, scenes, (64, 64), five, rank=0, world_size=2, tell=said.append),
        *predict(network, scenes, (64, 64), five, rank=1, world_size=2, tell=said.append),
    ]
    assert said == ["worker 0 has no memory to evaluate 5 images at a time, going on with 2"]
    assert [number for number, _ in found] == [number for number, _ in in_twos] == list(range(6))
    for (_, ours), (_, theirs) in zip(found, in_twos, strict=True):
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=1e-3)
        assert np.array_equal(ours.labels, theirs.labels)


def test_an_image_too_large_for_the_memory_says_so(untrained: Network, scenes: ShardSet) -> None:
    expected = (
        "^worker 0 ran out of memory with one image of 64×96 to evaluate; take a smaller image_size, or run fewer"
    )
    with pytest.raises(OutOfMemory, match=expected):
        evaluate(with_memory_for(0, untrained), scenes, (64, 96))


def test_an_error_that_is_not_about_memory_ends_an_evaluation(untrained: Network, scenes: ShardSet) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    untrained.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        evaluate(untrained, scenes, (64, 64))
