"""A stage as a run of Weights & Biases, through its own client; imported only where it is used."""

import json
import math
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb

from yolo_dist.console import say
from yolo_dist.object_store import is_remote
from yolo_dist.temporary import temporary_folder
from yolo_dist.train.tracking.config import WandbConfig
from yolo_dist.train.tracking.stage import Outcome, TrackedStage, numbers_of, without_credentials

START_SECONDS = 15.0
"""How long a server may take to answer before a stage goes on offline."""
RETRY_SECONDS = 100 * START_SECONDS
"""How long a server that failed is left alone: waiting for it to answer takes at most a hundredth of the time."""
FINISH_SECONDS = 60.0
"""How long the end of a stage waits for uploads; what is left over is on the disk."""

_failures: dict[str, tuple[float, str]] = {}
"""When servers last failed this process, in seconds of the monotonic clock, and how, by URL."""


class WandbRun:
    """A run whose id stays the same when the stage is interrupted and goes on, in the group of its pipeline's run."""

    name = "Weights & Biases"

    def __init__(self, stage: TrackedStage, config: WandbConfig) -> None:
        self.stage = stage
        self.config = config
        # the client's reports about itself: half a second of imports in the first epoch, and a thread that sends them
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.server = wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url
        self.run = self._online() if config.mode == "online" else self._start("offline")

    def log(self, line: dict[str, Any]) -> None:
        """Record an epoch: every number in it, and the histogram of γ."""
        values: dict[str, Any] = dict(numbers_of(line))
        if "gauge" in line:
            histogram = line["gauge"]["histogram"]
            counts, edges = np.asarray(histogram["counts"]), np.asarray(histogram["edges"])
            values["gauge/histogram"] = wandb.Histogram(np_histogram=(counts, edges))
        self.run.log(values, step=line["epoch"])

    def finish(self, outcome: Outcome) -> None:
        """Record results as the run's summary, images, and the bundle as an artifact."""
        self.run.summary.update(outcome.numbers)
        if outcome.images:
            after_the_last_epoch = self.stage.settings.get("epochs", 0) + 1
            images = [wandb.Image(str(path), caption=path.stem) for path in outcome.images]
            self.run.log({"validation": images}, step=after_the_last_epoch)
        if not outcome.files:
            return
        metadata = {"url": without_credentials(outcome.url), **outcome.numbers}
        artifact = wandb.Artifact(f"{self.stage.run}-{self.stage.stage}", type="model", metadata=metadata)
        with temporary_folder() as folder:
            for path in outcome.files:
                told = _told(path, folder)
                # the client copies what may be gone before it is uploaded, which may be days later
                lasting = outcome.lasting and told == path
                artifact.add_file(str(told), policy="immutable" if lasting else "mutable", skip_cache=True)
        self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """Upload what is left; the client's own process has ended and written everything afterwards."""
        try:
            self.run.finish(exit_code=int(failed))
        except TimeoutError:
            reason = f"its server did not take everything within {FINISH_SECONDS:g} s"
            _failures[self.server] = time.monotonic(), reason
            say(f"{self.stage.stage}: Weights & Biases: {reason}; `wandb sync` uploads the rest later")
        finally:
            wandb.teardown()

    def _online(self) -> wandb.Run:
        failed, reason = _failures.get(self.server, (-math.inf, ""))
        if time.monotonic() - failed < RETRY_SECONDS:
            return self._offline(f"{reason}, a short while ago")
        try:
            if wandb.login(prompt=False, verify=False):
                return self._start("online")
        except Exception as error:
            wandb.teardown()  # else its process holds the run's id
            wandb.setup(settings=wandb.Settings(silent=True))
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            _failures[self.server] = time.monotonic(), reason
            return self._offline(reason)
        return self._offline("no key (set WANDB_API_KEY where the first worker runs)")

    def _offline(self, reason: str) -> wandb.Run:
        say(f"{self.stage.stage}: Weights & Biases goes on offline: {reason}; `wandb sync` uploads it later")
        return self._start("offline")

    def _start(self, mode: Literal["online", "offline"]) -> wandb.Run:
        run = wandb.init(
            project=self.config.project,
            mode=mode,
            dir=self._folder(),
            id=self.stage.identity,
            name=f"{self.stage.run}/{self.stage.stage}",
            group=self.stage.group,
            job_type=self.stage.kind,
            resume="allow",
            config=self.stage.configuration,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,  # differences of a user's repository are not ours to send
                disable_code=True,
                x_disable_meta=True,  # the command line may hold what the configuration must not
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=mode == "online",
            ),
        )
        if mode == "offline" and is_remote(self.stage.metrics):
            where = f"{run.settings.sync_dir} on {socket.gethostname()}"
            say(f"{self.stage.stage}: Weights & Biases writes no object store: `wandb sync` uploads {where}")
        return run

    def _folder(self) -> str | None:
        """Where the client keeps its files: beside the run, or where it always does if that is elsewhere."""
        metrics = self.stage.metrics
        if is_remote(metrics):
            return None
        metrics.parent.mkdir(parents=True, exist_ok=True)
        return str(metrics.parent)


def _told(path: Path, folder: Path) -> Path:
    """The file; of a record that names URLs with credentials a copy in `folder`, without them."""
    if path.suffix != ".json":
        return path
    record = json.loads(path.read_bytes())
    told = without_credentials(record)
    if told == record:
        return path
    copy = folder / path.name
    copy.write_text(json.dumps(told))
    return copy
