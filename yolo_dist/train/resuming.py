"""When a training's state is kept, and how an interrupted one goes on: between the loop and its checkpoints."""

import time
from typing import Any

import torch
from upath import UPath

from yolo_dist.console import say
from yolo_dist.errors import Interrupted, TrainError
from yolo_dist.train.checkpoint import Checkpoints
from yolo_dist.train.config import CheckpointEvery
from yolo_dist.train.loop import Trainer

NOTHING, KEEP = 0, 1
"""What workers may want; a larger number is that of the signal by which they are asked to end."""
ASK_GPUS_EVERY = 20
"""Optimizer steps after which workers on GPUs agree: it makes them wait for each other."""


class Resuming:
    """Keeps the state of a trainer when it is due, and before the process is asked to end.

    Args:
        trainer: whose state; brought to where the newest checkpoint is.
        folder: path or URL of the checkpoints, the same storage for all workers.

    Attributes:
        seconds: that training took before, in processes that are gone.

    Raises:
        TrainError: the workers do not see the same checkpoints.
    """

    def __init__(self, trainer: Trainer, folder: UPath) -> None:
        self.trainer = trainer
        self.checkpoints = Checkpoints(folder, trainer.config.checkpoints_kept)
        self.seconds = 0.0
        self._restore()
        self._began = self._kept_at = time.monotonic()
        self._kept = self._began_at = self._position

    def after_step(self) -> None:
        """Called after every optimizer step within an epoch.

        Raises:
            Interrupted: the process was asked to end, and its state is kept.
        """
        steps = self._optimizer_steps
        if self.trainer.device.type != "cpu" and self.trainer.workers.size > 1 and steps % ASK_GPUS_EVERY:
            self._act(KEEP if self._due_by_steps(steps) else NOTHING)
        else:
            self._act(self._agreed(self._due_by_steps(steps) or self._due_by_time()))

    def after_epoch(self) -> None:
        """Called after every epoch, once all that it measured is written down.

        Raises:
            Interrupted: the process was asked to end, and its state is kept.
        """
        every, epoch = self.trainer.config.checkpoint_every, self.trainer.epoch
        due = epoch % every == 0 if isinstance(every, int) else self._due_by_steps(self._optimizer_steps)
        self._act(self._agreed(due or self._due_by_time() or self.trainer.finished))

    @property
    def elapsed(self) -> float:
        """Seconds that training took up to now, in all processes that had a part in it."""
        return self.seconds + time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """Seconds until the last epoch ends at the pace of this process; earlier ones may have slept or been slower."""
        steps_left = self.trainer.config.epochs * self.trainer.loader.steps - self._position
        return (time.monotonic() - self._began) / (self._position - self._began_at) * steps_left

    @property
    def _position(self) -> int:
        return self.trainer.epoch * self.trainer.loader.steps + self.trainer.step

    @property
    def _optimizer_steps(self) -> int:
        done = -(-self.trainer.step // self.trainer.config.accumulate)
        return self.trainer.epoch * self.trainer.optimizer_steps + done

    def _due_by_steps(self, steps: int) -> bool:
        every = self.trainer.config.checkpoint_every
        return isinstance(every, CheckpointEvery) and every.steps is not None and steps % every.steps == 0

    def _due_by_time(self) -> bool:
        """Whether it is, by this worker's clock."""
        every = self.trainer.config.checkpoint_every
        if not isinstance(every, CheckpointEvery) or every.minutes is None:
            return False
        return time.monotonic() - self._kept_at >= 60 * every.minutes

    def _agreed(self, due: bool) -> int:
        """What all workers do now: the most that any of them wants."""
        workers = self.trainer.workers
        wanted = workers.asked_to_stop() or (KEEP if due else NOTHING)
        if workers.size == 1:
            return wanted
        return int(workers.largest(torch.tensor(float(wanted), device=workers.device)))

    def _act(self, wanted: int) -> None:
        if wanted == NOTHING:
            return
        if self._kept != self._position:
            state: dict[str, Any] = {"trainer": self.trainer.state(), "seconds": self.elapsed}
            if self.trainer.workers.first:
                self.checkpoints.save(self._position, state)
            self._kept, self._kept_at = self._position, time.monotonic()
        if wanted > KEEP:
            self.trainer.workers.wait()  # until the first one has written: the end of one worker ends them all
            raise Interrupted(wanted, self._place)

    def _restore(self) -> None:
        workers = self.trainer.workers
        state = self.checkpoints.newest(tell=workers.first)
        if state is not None:
            self.trainer.restore(state["trainer"])
            self.seconds = state["seconds"]
        if len({tuple(seen) for seen in workers.gather([self._position])}) > 1:
            raise TrainError(
                f"{self.checkpoints.folder}: workers see different checkpoints; give a storage that all nodes share"
            )
        if state is not None and workers.first:
            say(f"going on {self._place} from the last checkpoint")

    @property
    def _place(self) -> str:
        step = f", step {self.trainer.step}" if self.trainer.step else ""
        return f"after epoch {self.trainer.epoch}{step}"
