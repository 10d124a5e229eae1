"""A server for tests and benchmarks that takes an online run of Weights & Biases, on a free port of this machine.

It knows as much of the protocol as the client needs to start a run, to send its epochs and to finish.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal

Manner = Literal["taking", "refusing", "silent"]
KEY = "5ec2e7" * 7


class WandbServer(ThreadingHTTPServer):
    """Answers, refuses every key, or accepts connections and says nothing.

    Attributes:
        requests: the paths that were asked for.
        configuration: the run's, by key.
        history: what was logged, a mapping a step.
    """

    daemon_threads = True

    def __init__(self, manner: Manner = "taking") -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.manner = manner
        self.requests: list[str] = []
        self.configuration: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.gone = Event()
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address, for WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def go_away(self) -> None:
        """From now on nobody listens."""
        if not self.gone.is_set():
            self.gone.set()
            self.shutdown()
            self.server_close()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What the client gets, as JSON."""
        if path.endswith("/file_stream"):
            rows = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.history += [json.loads(row) for row in rows]
        if path != "/graphql":
            return {}
        request = json.loads(body)
        asked = re.search(r"(?:query|mutation) (\w+)", request["query"])
        told = request["variables"]
        match asked and asked[1]:
            case "UpsertBucket":
                values = json.loads(told.get("config") or "{}")
                self.configuration |= {key: item["value"] for key, item in values.items()}
                project = {"name": "tests", "entity": {"name": "tester"}}
                bucket = {"id": "1", "name": told["name"], "displayName": "", "historyLineCount": 0, "project": project}
                return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
            case "RunResumeStatus":
                return {"data": {"model": None}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in told["files"]]
                return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return {"data": {}}


class _Answer(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.path)
        if self.server.manner == "silent":
            self.server.gone.wait()
            return
        content = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(401 if self.server.manner == "refusing" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def wandb_server(manner: Manner = "taking") -> Iterator[WandbServer]:
    """A server for as long as the block lasts, unless it goes away before."""
    server = WandbServer(manner)
    try:
        yield server
    finally:
        server.go_away()
