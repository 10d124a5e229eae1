"""Fixtures shared by the whole test suite."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from object_store_server import ObjectStore, object_store

if TYPE_CHECKING:
    from yolo_dist.data.mixture import Mixture

# Two threads that fight for a busy core are many times slower than one: torch reads this when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is; pytest ends a test that hangs.
hypothesis.settings.register_profile("of this project", deadline=None)
hypothesis.settings.load_profile("of this project")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real datasets are not at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def shard_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This machine's shard cache, which tests do not touch: they have their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("YOLO_DIST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server on this machine, started once for all tests that need it."""
    with object_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def s3(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The server, as the environment names it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def ray_session(s3_server: ObjectStore) -> Iterator[None]:
    """Ray on this machine with room for two workers, started once for all tests that need it."""
    import ray

    from yolo_dist.train.cluster import ClusterConfig, connect

    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        environment.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        for name, value in s3_server.environment().items():
            environment.setenv(name, value)  # workers get them when Ray starts
        connect(ClusterConfig(workers=2))
        yield
        ray.shutdown()


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group in which one process may play any rank: sums over workers are its own numbers."""
    import torch.distributed

    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def mixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny datasets to mix, converted; made once, and changed by no test."""
    from tiny_mixture import write_sources

    folder = tmp_path_factory.mktemp("mixture")
    write_sources(folder)
    return folder


@pytest.fixture(scope="session")
def mixture(mixture_folder: Path) -> "Mixture":
    """Their training splits as one."""
    from tiny_mixture import open_mixture

    return open_mixture(mixture_folder)


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The client of Weights & Biases with its folders inside the test's own: nobody's key, nobody's settings."""
    import wandb

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # it reads its environment only once
    yield tmp_path / "home"
    wandb.teardown()
