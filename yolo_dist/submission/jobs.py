"""Jobs on a cluster, through Ray's job server: sent, followed, waited for, listed, stopped."""

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
import tenacity
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from yolo_dist.errors import ClusterError
from yolo_dist.submission.plan import Submission

SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_IN_VAIN = 30
"""In a row, before a server that was there counts as lost."""
NO_ANSWER = (ConnectionError, requests.RequestException, aiohttp.ClientError, json.JSONDecodeError)
"""What Ray's client raises where a server does not answer, breaks off, or something else answers in its place."""
OVERRULING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Variables that Ray's client would take in place of the address it is given."""


@dataclass(frozen=True)
class Job:
    """A job as the server knows it; times in seconds since 1970."""

    id: str
    status: str
    command: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def code(self) -> int:
        """Exit code to hand on: its own; 1 where it has none and did not succeed."""
        return self.exit_code if self.exit_code is not None else int(self.status != "SUCCEEDED")


class JobServer:
    """The job server of a cluster's head.

    Where the cluster asks for a token, it is Ray's own: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    """

    def __init__(self, address: str) -> None:
        """Reach the server at an address such as http://10.0.0.1:8265.

        Raises:
            ClusterError: it does not answer, or refuses the token.
        """
        self.address = address if "://" in address else f"http://{address}"
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
        with self._reaching(), _without(OVERRULING):
            self._client = JobSubmissionClient(self.address)

    def submit(self, submission: Submission, id: str | None = None) -> str:
        """Send a job; its id.

        Raises:
            ClusterError: the server refuses it; for one, there is a job of this id.
        """
        with tempfile.TemporaryDirectory(prefix="yolo-dist-") as folder, self._reaching():
            archive = Path(folder) / "working-directory.zip"
            submission.package.write(archive)
            return self._client.submit_job(
                entrypoint=submission.entrypoint,
                runtime_env=submission.runtime_environment(str(archive)),
                submission_id=id,
            )

    def job(self, id: str) -> Job:
        """A job.

        Raises:
            ClusterError: there is none of this id.
        """
        with self._reaching(id):
            return _job(self._client.get_job_info(id))

    def jobs(self) -> list[Job]:
        """Those that were submitted, the newest first."""
        with self._reaching():
            submitted = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(submitted, key=lambda job: -(job.started or 0))

    def stop(self, id: str) -> bool:
        """Ask a job to end, which writes a checkpoint first; whether it still ran.

        Raises:
            ClusterError: there is none of this id.
        """
        with self._reaching(id):
            return self._client.stop_job(id)

    def logs(self, id: str) -> str:
        """What a job has printed so far."""
        with self._reaching(id):
            return self._client.get_job_logs(id)

    def follow(self, id: str, show: Callable[[str], Any]) -> None:
        """Hand on what a job prints, until it has ended."""

        async def tail() -> None:
            async for text in self._client.tail_job_logs(id):
                show(text)

        with self._reaching(id):
            asyncio.run(tail())

    def wait(self, id: str) -> Job:
        """The job, once it has ended; a connection may be lost for a while.

        Raises:
            ClusterError: there is none of this id, or the server stays away.
        """
        patiently = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(LOOKS_IN_VAIN),
            wait=tenacity.wait_fixed(SECONDS_BETWEEN_LOOKS),
            retry=tenacity.retry_if_exception_type(NO_ANSWER),
            reraise=True,
        )
        with self._reaching(id):
            while not (job := _job(patiently(self._client.get_job_info, id))).over:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return job

    @contextmanager
    def _reaching(self, id: str | None = None) -> Iterator[None]:
        """What goes wrong with the server, as one line."""
        try:
            yield
        except AuthenticationError:
            raise ClusterError(
                f"{self.address}: refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster"
            ) from None
        except (*NO_ANSWER, RuntimeError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            if id is None and isinstance(error, NO_ANSWER):
                text = "no job server answers; start the head with --dashboard-host, or forward its port 8265"
            elif id is not None and ("status code 404" in text or getattr(error, "status", None) == 404):
                raise ClusterError(
                    f"{id}: no such job at {self.address}; `yolo-dist jobs list` names those it has"
                ) from None
            elif id is not None:
                text += f"; {id} does not need this connection: `yolo-dist jobs logs {id} --follow` looks again"
            raise ClusterError(f"{self.address}: {text}") from None


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """This process's environment without some of its variables."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _job(details: JobDetails) -> Job:
    started, ended = (None if time is None else time / 1000 for time in (details.start_time, details.end_time))
    return Job(
        id=details.submission_id or "",
        status=str(details.status.value),
        command=details.entrypoint,
        started=started,
        ended=ended,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
