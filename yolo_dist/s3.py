"""The client of S3 stores: it does not wait for one that stalls, and remembers nothing of what is in it."""

import socket
from functools import partial
from typing import Any

from s3fs import S3FileSystem

from yolo_dist.object_store import store_timeout


class PatientS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs for stores that stall and that other processes write to.

    Connecting, sending and receiving may each come to a halt for `store_timeout` seconds before the request fails.
    """

    retries = 1  # botocore tries five times, and `persistently` as often: five times more would make 125

    def __init__(self, *arguments: Any, config_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        seconds = store_timeout()
        limits = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "connector_args": {"socket_factory": partial(_impatient_socket, seconds)},
        }
        options.setdefault("use_listings_cache", False)  # tasks and other machines write to the same folders
        super().__init__(*arguments, config_kwargs=limits | (config_kwargs or {}), **options)


def _impatient_socket(seconds: float, address: tuple[Any, ...]) -> socket.socket:
    """A socket that does not wait for long until what it sends is taken, for which aiohttp has no timeout."""
    connection = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
    return connection
