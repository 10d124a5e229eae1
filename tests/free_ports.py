"""Ports of the loopback interface on which nothing listens."""

import socket


def free_ports(count: int) -> list[int]:
    """Different ones, free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
