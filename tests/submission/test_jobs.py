"""Jobs while the way to their server breaks off; on a real server they are in tests/cli/test_cli_jobs.py."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import requests
from multidict import CIMultiDict, CIMultiDictProxy
from ray.job_submission import JobDetails, JobStatus, JobType
from yarl import URL

from yolo_dist.errors import ClusterError
from yolo_dist.submission import JobServer, jobs

RUNNING, DONE = (
    JobDetails(type=JobType.SUBMISSION, submission_id="j1", status=status, entrypoint="true")
    for status in (JobStatus.RUNNING, JobStatus.SUCCEEDED)
)
AT_THE_SERVER = aiohttp.RequestInfo(URL("http://head:8265"), "GET", CIMultiDictProxy(CIMultiDict()))
REFUSED = requests.ConnectionError("Connection refused")
ANOTHER_ANSWERS = requests.JSONDecodeError("Expecting value", "<html>", 0)
BROKEN_OFF = aiohttp.ServerDisconnectedError()
ABNORMALLY_CLOSED = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


class Client:
    """In the place of Ray's: gives one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = iter(answers)

    def get_job_info(self, _id: str) -> Any:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_job_logs = get_job_info

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        for _ in range(2):
            yield self.get_job_info(id)


def server(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> JobServer:
    monkeypatch.setattr(jobs, "JobSubmissionClient", lambda _address: Client(*answers))
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN_LOOKS", 0)
    return JobServer("http://head:8265")


def test_who_waits_bears_with_a_connection_that_is_lost_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [REFUSED, RUNNING, BROKEN_OFF, ANOTHER_ANSWERS, RUNNING, DONE]
    assert server(monkeypatch, *answers).wait("j1").status == "SUCCEEDED"


def test_a_server_that_stays_away_ends_the_waiting_and_not_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOOKS_IN_VAIN", 2)
    with pytest.raises(ClusterError) as error:
        server(monkeypatch, RUNNING, REFUSED, REFUSED).wait("j1")
    assert str(error.value) == (
        "http://head:8265: Connection refused; j1 does not need this connection: "
        "`yolo-dist jobs logs j1 --follow` looks again"
    )


@pytest.mark.parametrize("lost", [REFUSED, ANOTHER_ANSWERS, BROKEN_OFF, ABNORMALLY_CLOSED])
def test_a_lost_connection_says_how_to_look_at_the_job_again(lost: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    with pytest.raises(ClusterError, match=r"`yolo-dist jobs logs j1 --follow` looks again$"):
        server(monkeypatch, "epoch 1\n", lost).follow("j1", shown.append)
    assert shown == ["epoch 1\n"]
    with pytest.raises(ClusterError, match=r"`yolo-dist jobs logs j1 --follow` looks again$"):
        server(monkeypatch, lost).logs("j1")


@pytest.mark.parametrize(
    "missing",
    [
        RuntimeError("Request failed with status code 404: Job j1 does not exist."),
        aiohttp.WSServerHandshakeError(AT_THE_SERVER, (), status=404),
    ],
    ids=["asked", "followed"],
)
def test_a_job_that_is_not_there_is_not_waited_for(missing: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match=r"^j1: no such job at http://head:8265; "):
        server(monkeypatch, missing).job("j1")
