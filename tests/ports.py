"""Ports that no other test uses, whichever process it runs in."""

import os
import socket
from collections.abc import Iterator

FIRST, LAST = 20_000, 32_000
"""Below those that the kernel gives to whoever connects."""

_reserved: list[socket.socket] = []


def _candidates() -> Iterator[int]:
    """Yield all ports, from one on that differs from process to process."""
    span = LAST - FIRST
    start = os.getpid() * 97 % span
    return (FIRST + (start + step) % span for step in range(span))


def _reserve(port: int) -> bool:
    """Whether the port is ours now, among tests, until this process ends."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0secure-aggregation-test-{port}")  # an abstract name: no file is left
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now and no test will."""
    for port in _candidates():
        if _reserve(port):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
    raise AssertionError(f"no free port in {FIRST}..{LAST}")
