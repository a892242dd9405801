"""Messages to bytes and back: msgpack [version, type, field, …], bounded and strict.

What a peer sent is checked field by field against the message's declaration before anything else
sees it: kinds, ranges and lengths. Nothing is unpacked that the declaration does not name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgpack

from mphe.errors import EncodingError, MalformedMessage, OtherVersion
from mphe.plan.agreement import MAX_CLIENTS, PROTOCOL_VERSION
from mphe.wire.messages import NUMBERS, Message

MESSAGE_TYPES: tuple[type[Any], ...] = tuple(NUMBERS)
_TYPES = MappingProxyType({number: cls for cls, number in NUMBERS.items()})
MAX_INTEGER = 1 << 53
MAX_TEXT = 1 << 12
MAX_ITEMS = MAX_CLIENTS
Reader = Callable[[Any], Any]
R = TypeVar("R")


class _WrongVersion(EncodingError):
    """The first thing that was read is not this version's number."""


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    head = [PROTOCOL_VERSION, NUMBERS[type(message)]]
    packed: bytes = msgpack.packb([*head, *_values(message)], use_bin_type=True)
    return packed


def decode(data: bytes, sender: int) -> Message:
    """Return the message of exactly these bytes.

    Raises:
        OtherVersion: they are of another version.
        MalformedMessage: they are no message of this version; both name the sender.
    """
    try:
        return _decode(data)
    except _WrongVersion as error:
        raise OtherVersion(sender, str(error)) from error
    except EncodingError as error:
        raise MalformedMessage(sender, str(error)) from error


def pack(record: Any) -> bytes:
    """Return the bytes of a record that is no message, for a file."""
    packed: bytes = msgpack.packb([PROTOCOL_VERSION, *_values(record)], use_bin_type=True)
    return packed


def unpack(data: bytes, cls: type[R]) -> R:
    """Return the record of exactly these bytes, checked against its declaration.

    Raises:
        EncodingError: they are no such record of this version.
    """

    def read(unpacker: Any) -> Any:
        count = unpacker.read_array_header()
        _check_version(_read_integer(unpacker, "the version"))
        return _read_fields(unpacker, cls, count - 1)

    record: R = _read_all(data, read)
    return record


def _values(record: Any) -> list[Any]:
    """Return the fields of a message, nested records as lists."""
    return [_plain(getattr(record, field.name)) for field in fields(record)]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _values(value) if is_dataclass(value) else value


def _decode(data: bytes) -> Message:
    message: Message = _read_all(data, _read_message)
    return message


def _read_all(data: bytes, read: Reader) -> Any:
    """Read one value and make sure that nothing is left."""
    unpacker = msgpack.Unpacker(
        raw=False,
        max_buffer_size=max(len(data), 1),
        max_str_len=MAX_TEXT,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(data)
    try:
        value = read(unpacker)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        if isinstance(error, EncodingError):
            raise
        raise EncodingError(f"not a message: {type(error).__name__}") from error
    if unpacker.tell() != len(data):
        raise EncodingError(f"{len(data) - unpacker.tell()} bytes behind the message")
    return value


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise _WrongVersion(f"protocol version {version}, this program speaks {PROTOCOL_VERSION}")


def _read_message(unpacker: Any) -> Message:
    """Read version, type and the fields that this type declares."""
    count = unpacker.read_array_header()
    version, kind = (_read_integer(unpacker, "the head of a message") for _ in range(2))
    _check_version(version)
    if kind not in _TYPES:
        raise EncodingError(f"unknown message type {kind}")
    message: Message = _read_fields(unpacker, _TYPES[kind], count - 2)
    return message


def _read_fields(unpacker: Any, cls: type[Any], count: int) -> Any:
    """Return an instance of a message or nested record of `count` fields."""
    readers = _readers(cls)  # type: ignore[arg-type]  # a class is hashable
    if count != len(readers):
        raise EncodingError(f"{cls.__name__} has {len(readers)} fields, not {count}")
    return cls(*(read(unpacker) for read in readers))


@cache
def _readers(cls: type[Any]) -> tuple[Reader, ...]:
    """Return one reader for each field of a record."""
    hints = get_type_hints(cls)
    return tuple(_reader(hint, f"{cls.__name__}.{name}") for name, hint in hints.items())


def _reader(hint: Any, name: str) -> Reader:
    """Return a function that reads one value of a declared type.

    Only what the declaration allows is ever unpacked, so that nested containers cannot take
    memory that the bytes at hand do not account for.
    """
    if get_origin(hint) is tuple:
        return _tuple_reader(_reader(get_args(hint)[0], name), name)
    if is_dataclass(hint) and isinstance(hint, type):
        return lambda unpacker: _read_fields(unpacker, hint, unpacker.read_array_header())
    if hint is int:
        return lambda unpacker: _read_integer(unpacker, name)

    def read(unpacker: Any) -> Any:
        value = unpacker.unpack()
        if type(value) is not hint:
            raise EncodingError(f"{name} is a {type(value).__name__}, not a {hint.__name__}")
        return value

    return read


def _read_integer(unpacker: Any, name: str) -> int:
    value = unpacker.unpack()
    # bool is an int for isinstance, so the exact type is compared.
    if type(value) is not int or not 0 <= value < MAX_INTEGER:
        raise EncodingError(f"{name} is no integer from 0 to 2^53")
    return value


def _tuple_reader(read_item: Reader, name: str) -> Reader:
    def read(unpacker: Any) -> tuple[Any, ...]:
        count = unpacker.read_array_header()
        if count > MAX_ITEMS:
            raise EncodingError(f"{name} has {count} items, more than {MAX_ITEMS}")
        return tuple(read_item(unpacker) for _ in range(count))

    return read
