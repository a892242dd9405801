"""The state of a party as bytes: a head in clear, then a record that the codec reads strictly.

magic "mphe", kind (1 byte), format version (1 byte), serial (8 bytes, big-endian), record
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, TypeVar

from mphe.errors import EncodingError
from mphe.wire import codec

MAGIC = b"mphe"
FORMAT_VERSION = 1
_HEAD = struct.Struct(">4sBBQ")
R = TypeVar("R")


class Kind(IntEnum):
    """Whose state it is."""

    SERVER = 0
    CLIENT = 1


def write(kind: Kind, serial: int, record: Any) -> bytes:
    """Return the bytes of a state."""
    return _HEAD.pack(MAGIC, kind, FORMAT_VERSION, serial) + codec.pack(record)


def read(data: bytes, kind: Kind, cls: type[R]) -> tuple[int, R]:
    """Return serial and record of exactly these bytes.

    Raises:
        EncodingError: they are no state of this kind that this version wrote.
    """
    magic, found, version, serial = _head(data)
    if magic != MAGIC or found != kind:
        raise EncodingError(f"this is no state of a {kind.name.lower()}")
    if version != FORMAT_VERSION:
        raise EncodingError(f"state of format {version}, this program reads {FORMAT_VERSION}")
    return serial, codec.unpack(data[_HEAD.size :], cls)


def serial_of(state: bytes) -> int:
    """Return the serial number of a state: it grows with every change of the party.

    A store replaces a state only by one that was made from it: it compares the number that it
    holds with the one from which the change began, and swaps (docs/architecture.md).

    Raises:
        EncodingError: this is no state of a party.
    """
    magic, *_, serial = _head(state)
    if magic != MAGIC:
        raise EncodingError("this is no state of a party")
    return int(serial)


def _head(data: bytes) -> tuple[bytes, int, int, int]:
    if len(data) < _HEAD.size:
        raise EncodingError("this is no state of a party: it is too short")
    magic, kind, version, serial = _HEAD.unpack_from(data)
    return magic, kind, version, serial
