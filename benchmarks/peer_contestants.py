"""The contestants of `loader_peers.py`: bare decoding, the loader, and four others over the same samples.

Peers are imported where they run, as not all of them can be installed in one environment.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from peer_samples import (
    BATCH_SIZE,
    JPEGS,
    PARQUETS,
    SIZE,
    STREAMING,
    TARS,
    Batch,
    Item,
    collate,
    mosaic_item,
    pack,
    plain_item,
    unpack,
)
from peer_teams import Epoch, Task
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.augment import AugmentConfig
from yolo_dist.data.image import plan_letterbox, reduction
from yolo_dist.data.loader import Loader
from yolo_dist.data.shards import Sample, open_split

RECENT = 64
"""Samples among which a reader of streams finds partners for a mosaic."""
_FLAGS = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}


def prepare_whole(task: Task) -> Epoch:
    """Decode whole and resize, from memory, and nothing else."""
    return _bare(task, lambda _data, _scale: 1)


def prepare_reduced(task: Task) -> Epoch:
    """Decode no larger than the input needs and resize, from memory, and nothing else."""
    return _bare(task, reduction)


def _bare(task: Task, factor: Callable[[bytes, float], int]) -> Epoch:
    shards = open_split(task.folder / "shards", "train")
    work = []
    for number in range(task.rank, len(shards), task.processes):
        sample = shards[number]
        scale, data = plan_letterbox(sample.width, sample.height, SIZE).scale, bytes(sample.image)
        flags = _FLAGS[factor(data, scale)] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        work.append((data, flags, (round(sample.width * scale), round(sample.height * scale))))

    def epoch() -> int:
        for data, flags, size in work:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            assert image is not None
            cv2.resize(image, size)
        return len(work)

    return epoch


def prepare_ours(task: Task) -> Epoch:
    """The loader with one thread."""
    shards = open_split(task.folder / "shards", "train")
    loader = Loader(
        shards,
        SIZE,
        BATCH_SIZE * task.processes,
        augment=AugmentConfig() if task.mosaic else None,
        rank=task.rank,
        world_size=task.processes,
        threads=1,
    )
    epochs = iter(range(1_000_000))
    return lambda: sum(len(batch) for batch in loader.batches(next(epochs)))


class JpegFolder(Dataset[Item]):
    """A folder of JPEGs, each with its boxes in a file beside it."""

    def __init__(self, folder: Path, mosaic: bool) -> None:
        self.names = sorted(str(path.with_suffix("")) for path in folder.glob("*.jpg"))
        self.mosaic = mosaic
        self.generator = np.random.default_rng()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        return item_of(self._read, index, len(self), self.generator if self.mosaic else None)

    def _read(self, index: int) -> Sample:
        name = self.names[index]
        return unpack(Path(f"{name}.jpg").read_bytes(), Path(f"{name}.packed").read_bytes())


def item_of(read: Callable[[int], Sample], index: int, count: int, generator: np.random.Generator | None) -> Item:
    """A sample on its own, or in a mosaic with three random others."""
    if generator is None:
        return plain_item(read(index))
    partners = generator.integers(count, size=3).tolist()
    return mosaic_item([read(one) for one in (index, *partners)], generator)


def prepare_torch(task: Task) -> Epoch:
    """PyTorch's DataLoader over a folder of files; the setting is the number of its workers."""
    dataset = JpegFolder(task.folder / JPEGS, task.mosaic)
    sampler: DistributedSampler[Item] = DistributedSampler(dataset, task.processes, task.rank)
    loader = _data_loader(dataset, task.setting, batch_size=BATCH_SIZE, sampler=sampler, collate_fn=collate)
    return lambda: sum(len(images) for images, *_ in loader)


def _data_loader(dataset: Dataset[Any], workers: int, **settings: Any) -> DataLoader[Any]:
    ahead: dict[str, Any] = (
        {"persistent_workers": True, "prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
    )
    return DataLoader(dataset, num_workers=workers, **ahead, **settings)


def prepare_webdataset(task: Task) -> Epoch:
    """webdataset over tar files; the setting is the number of DataLoader workers."""
    import webdataset

    os.environ.update(RANK=str(task.rank), WORLD_SIZE=str(task.processes))
    tars = sorted(str(path) for path in (task.folder / TARS).glob("*.tar"))
    stages = webdataset.WebDataset(
        tars, shardshuffle=len(tars), nodesplitter=webdataset.split_by_node, empty_check=False
    )
    samples = stages.shuffle(RECENT).map(lambda row: unpack(row["jpg"], row["packed"]))
    items = samples.compose(_mosaics) if task.mosaic else samples.map(plain_item)
    batches = items.batched(BATCH_SIZE, collation_fn=collate)
    loader = _data_loader(batches, task.setting, batch_size=None) if task.setting else batches
    return lambda: sum(len(images) for images, *_ in loader)


def _mosaics(samples: Iterable[Sample]) -> Iterator[Item]:
    """Each sample with three of the last ones."""
    generator = np.random.default_rng()
    recent: deque[Sample] = deque(maxlen=RECENT)
    for sample in samples:
        recent.append(sample)
        partners = [recent[one] for one in generator.integers(len(recent), size=3)]
        yield mosaic_item((sample, *partners), generator)


def import_streaming() -> Any:
    """mosaicml-streaming; beside a PyTorch for processors only, its torchvision may lack what it never calls."""
    try:
        import streaming
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import streaming
    return streaming


def write_streaming(folder: Path) -> None:
    """The samples in the format of mosaicml-streaming."""
    columns = {"image": "bytes", "packed": "bytes"}
    with import_streaming().MDSWriter(out=str(folder / STREAMING), columns=columns) as writer:
        for sample in open_split(folder / "shards", "train"):
            writer.write({"image": bytes(sample.image), "packed": pack(sample)})


def prepare_streaming(task: Task) -> Epoch:
    """mosaicml-streaming over its own format; the setting is the number of DataLoader workers."""
    os.environ.update(RANK=str(task.rank), LOCAL_RANK=str(task.rank), MASTER_ADDR="127.0.0.1")
    os.environ.update(WORLD_SIZE=str(task.processes), LOCAL_WORLD_SIZE=str(task.processes), MASTER_PORT=str(task.port))
    streaming = import_streaming()
    generator = np.random.default_rng() if task.mosaic else None

    class Samples(streaming.StreamingDataset):  # type: ignore[misc,name-defined]
        def __getitem__(self, index: int) -> Item:
            return item_of(self._read, index, self.num_samples, generator)

        def _read(self, index: int) -> Sample:
            row = super().__getitem__(index)
            return unpack(row["image"], row["packed"])

    dataset = Samples(local=str(task.folder / STREAMING), shuffle=True, batch_size=BATCH_SIZE)
    loader = _data_loader(dataset, task.setting, batch_size=BATCH_SIZE, collate_fn=collate)
    return lambda: sum(len(images) for images, *_ in loader)


def prepare_ray(task: Task) -> Epoch:
    """Ray Data over Parquet files; with setting 0 its tasks decode, with another the consumer's threads do."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for Ray's workers
    import ray.data
    from ray.data.collate_fn import NumpyBatchCollateFn

    class Collate(NumpyBatchCollateFn):
        def __call__(self, batch: Any) -> Any:
            return _joined(batch) if task.setting == 0 else collate(_items(batch, task.mosaic))

    ray.init(num_cpus=len(task.cores), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # so that reading and the work on what was read are one task
    rows = ray.data.read_parquet(str(task.folder / PARQUETS), shuffle="files")
    if task.setting == 0:
        work: Any = _decoded_rows
        rows = rows.map_batches(work, batch_size=BATCH_SIZE, fn_kwargs={"mosaic": task.mosaic}, zero_copy_batch=True)

    def epoch() -> int:
        batches = rows.iter_torch_batches(
            batch_size=BATCH_SIZE, prefetch_batches=task.setting or 2, collate_fn=Collate()
        )
        return sum(len(images) for images, *_ in batches)

    return epoch


def _items(batch: Any, mosaic: bool) -> list[Item]:
    """The work on a batch of Ray's; partners for a mosaic come from the batch."""
    cv2.setNumThreads(1)
    samples = [unpack(*row) for row in zip(batch["image"], batch["packed"], strict=True)]
    generator = np.random.default_rng() if mosaic else None
    return [item_of(samples.__getitem__, number, len(samples), generator) for number in range(len(samples))]


def _decoded_rows(batch: Any, mosaic: bool) -> dict[str, Any]:
    items = _items(batch, mosaic)
    boxes = [np.column_stack([boxes.xyxy, boxes.labels]).tobytes() for _, boxes in items]
    return {"pixels": np.stack([pixels for pixels, _ in items]), "boxes": boxes}


def _joined(batch: Any) -> Batch:
    items = []
    for pixels, packed in zip(batch["pixels"], batch["boxes"], strict=True):
        rows = np.frombuffer(packed).reshape(-1, 5)
        boxes = Boxes(rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int32), np.zeros(len(rows), np.bool_))
        items.append((pixels, boxes))
    return collate(items)
