"""A proxy before an HTTP server that fails as it is told."""

import http.client
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "cut", "flipped", "reset", "slow")
STALLS = ("silent", "stalled")


class FaultyProxy:
    """Faults that meet the next requests for objects, one each; none once they are used up.

    500, 503: the server's answer. cut: half of the body, then the connection ends. flipped: the whole body with one bit
    wrong. reset: the connection ends without an answer. slow: the body comes byte by byte. silent: the body of the
    request is not read and no answer comes, but the connection stays. stalled: the same after half a body.

    Attributes:
        endpoint: URL of the proxy.
        faults: those still to come.
        requests: paths asked for, faulty or not.
        ends, method: which requests meet faults: those for paths that end so, of this kind.
    """

    def __init__(self, endpoint: str, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.server = urlsplit(endpoint).netloc
        self.faults: deque[str] = deque()
        self.requests: list[str] = []
        self._over = threading.Event()
        self._stalling: list[threading.Thread] = []
        self.ends = ".arrow"
        self.method = "GET"

    def next_fault(self, method: str, path: str) -> str | None:
        """What befalls a request."""
        self.requests.append(path)
        return self.faults.popleft() if method == self.method and self.faults and path.endswith(self.ends) else None

    def stall(self) -> None:
        """Keep a connection as it is until the proxy ends."""
        self._stalling.append(threading.current_thread())
        self._over.wait()

    def end_stalls(self) -> None:
        """Let go of all connections, and wait until they are."""
        self._over.set()
        for thread in self._stalling:
            thread.join()


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[FaultyProxy]:
    """A proxy before `endpoint` for as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        proxy = FaultyProxy(endpoint, server.server_port)
        server.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
            proxy.end_stalls()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.next_fault(self.command, urlsplit(self.path).path)
        if fault == "silent":
            proxy.stall()
            self.close_connection = True
            return
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault == "reset":
            self.close_connection = True
            return
        if fault in ("500", "503"):
            self._answer(int(fault), [], b"<Error><Code>Planted</Code></Error>")
            return
        connection = http.client.HTTPConnection(proxy.server)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(sent)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if fault == "flipped":
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        self._answer(response.status, response.getheaders(), body, fault)
        if fault == "stalled":
            proxy.stall()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            body = body[: len(body) // 2] if fault in ("cut", "stalled") else body
            size = 1 if fault == "slow" else len(body) or 1
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
        self.close_connection = fault in ("cut", "stalled")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # names of the base class

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
