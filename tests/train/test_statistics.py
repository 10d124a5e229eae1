"""Statistics of the averaged network: measured anew when it is judged, and nothing in training notices."""

import pytest
import torch
from tiny_training import SIZE, scenes, tiny_network, training
from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.data.loader import Loader
from yolo_dist.data.shards import ShardSet
from yolo_dist.errors import OutOfMemory
from yolo_dist.train.loop import Trainer
from yolo_dist.train.statistics import settled_statistics, statistics_of
from yolo_dist.train.workers import Workers


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return scenes(tmp_path_factory.mktemp("scenes"), images=8)


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]


def allocator_that_fails(*_: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


def test_statistics_are_means_and_variances_over_the_images() -> None:
    network = tiny_network()
    with settled_statistics(network, [images()], Workers(), kept=True):
        pass
    mean, variance, *_ = statistics_of(network)
    maps = network.get_submodule("layers.0.conv")(images())
    torch.testing.assert_close(mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(variance, maps.var((0, 2, 3)))


def test_settled_statistics_are_taken_back() -> None:
    network = tiny_network()
    before = state(network)
    with settled_statistics(network, [images()], Workers()):
        assert all("running" in name or "tracked" in name for name in differing(before, state(network)))
        assert differing(before, state(network))
    assert [name for name in differing(before, state(network)) if "tracked" not in name] == []


def test_statistics_that_do_not_fit_into_memory_say_what_to_do() -> None:
    network = tiny_network()
    before = state(network)
    without_memory = network.register_forward_pre_hook(allocator_that_fails)
    expected = (
        "^worker 1 ran out of memory measuring batch-norm statistics; run fewer workers on a machine, or set "
        "statistics_images below 8, "
    )
    with pytest.raises(OutOfMemory, match=expected), settled_statistics(network, [images()], Workers(1, 2)):
        pass
    without_memory.remove()
    assert [name for name in differing(before, state(network)) if "tracked" not in name] == []


def test_judging_between_epochs_changes_nothing_in_training(shards: ShardSet) -> None:
    judged, unseen = (Trainer(tiny_network(), shards, training(epochs=2), SIZE, threads=0) for _ in range(2))
    for trainer in (judged, unseen):
        trainer.run_epoch()
    with judged.judged() as network:
        assert network is judged.average.network
        assert not torch.equal(statistics_of(network)[0], statistics_of(unseen.average.network)[0])
    for trainer in (judged, unseen):
        trainer.run_epoch()
    for mine, other in ((judged.network, unseen.network), (judged.average.network, unseen.average.network)):
        assert [name for name in differing(state(mine), state(other)) if "tracked" not in name] == []


def test_after_the_last_epoch_the_statistics_stay_those_of_augmented_images(shards: ShardSet) -> None:
    """The eight images as the stage's first epoch shows them, whatever share of them a worker trains on."""
    config = training(epochs=1, augment={"mosaic": 0, "scale": 0.5})
    trainer = Trainer(tiny_network(), shards, config, SIZE, threads=0)
    (batch,) = Loader(shards, SIZE, 8, augment=config.augment, seed=config.seed, threads=0).batches(0)
    trainer.run_epoch()
    expected = tiny_network()
    expected.load_state_dict(trainer.average.network.state_dict())
    with settled_statistics(expected, [batch.images.float() / 255], Workers(), kept=True):
        pass
    with trainer.judged(last=True):
        pass
    for mine, theirs in zip(statistics_of(trainer.average.network), statistics_of(expected), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_without_images_the_running_statistics_judge(shards: ShardSet) -> None:
    trainer = Trainer(tiny_network(), shards, training(epochs=1, statistics_images=0), SIZE, threads=0)
    trainer.run_epoch()
    before = state(trainer.average.network)
    with trainer.judged(last=True) as network:
        assert differing(before, state(network)) == []
