"""A stage's event files for TensorBoard, in `tensorboard/STAGE/` beside `metrics.jsonl`; imported only where used.

They are written by tensorboardX, which Ray Train brings along anyway: half a megabyte, where torch.utils.tensorboard
asks for all of TensorBoard. Its file writer is used without its `SummaryWriter`, whose queue and threads nothing waits
for: what `flush` should have written may come later.
"""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from yolo_dist.object_store import is_remote
from yolo_dist.storage import publish, remove
from yolo_dist.temporary import temporary_folder
from yolo_dist.train.tracking.stage import Outcome, TrackedStage, numbers_of


class EventFiles:
    """Event files of one stage. On object stores they are written anew after every epoch, for nothing appends there."""

    name = "TensorBoard"

    def __init__(self, stage: TrackedStage) -> None:
        self.stage = stage
        self.folder = stage.metrics.parent / "tensorboard" / stage.stage
        self._exit = ExitStack()
        self._temporary = self._exit.enter_context(temporary_folder()) if is_remote(self.folder) else None
        self._file: EventsWriter | None = None

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch: every number in it, and the histogram of γ.

        The first one hides what is there of itself and of later ones, from before an interruption.
        """
        epoch = line["epoch"]
        if self._file is None:
            self._open(afresh=epoch == 1)
            self._write(step=epoch, session_log=SessionLog(status=SessionLog.START))
        summaries = _scalars(numbers_of(line))
        if "gauge" in line:
            summaries.append(_histogram("gauge/histogram", line["gauge"]["histogram"]))
        self._write(step=epoch, summary=_joined(summaries))
        self._flush()

    def finish(self, outcome: Outcome) -> None:
        """Record results, the configuration and images."""
        self._open(afresh=self.stage.kind != "train")
        configuration = summary.text("configuration", f"```\n{json.dumps(self.stage.configuration, indent=2)}\n```")
        images = [_image(f"validation/{path.stem}", path) for path in outcome.images]
        self._write(step=0, summary=_joined([*_scalars(outcome.numbers), configuration, *images]))
        self._flush()

    def close(self, failed: bool) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._exit.close()

    def _open(self, afresh: bool) -> None:
        if afresh:
            remove(self.folder)
        folder = self._temporary or Path(self.folder.path)
        folder.mkdir(parents=True, exist_ok=True)
        # a file's name has nothing finer than seconds in it
        self._file = EventsWriter(str(folder / "events"), f".{secrets.token_hex(3)}")

    def _write(self, **content: Any) -> None:
        assert self._file is not None
        self._file.write_event(Event(wall_time=time.time(), **content))

    def _flush(self) -> None:
        assert self._file is not None
        self._file.flush()
        if self._temporary is not None:
            for file in self._temporary.iterdir():
                publish(self.folder / file.name, file.read_bytes())


def _joined(summaries: Iterable[Any]) -> Any:
    return Summary(value=[value for one in summaries for value in one.value])


def _scalars(numbers: Mapping[str, float]) -> list[Any]:
    return [summary.scalar(name, value) for name, value in numbers.items()]


def _histogram(name: str, histogram: Mapping[str, Sequence[float]]) -> Any:
    counts, edges = np.asarray(histogram["counts"]), np.asarray(histogram["edges"])
    centres = (edges[:-1] + edges[1:]) / 2  # the values themselves are not in the gauge
    return summary.histogram_raw(
        name,
        min=float(edges[0]),
        max=float(edges[-1]),
        num=int(counts.sum()),
        sum=float(counts @ centres),
        sum_squares=float(counts @ centres**2),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
    )


def _image(name: str, path: Path) -> Any:
    with Image.open(path) as image:
        width, height = image.size
    content = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=name, image=content)])
