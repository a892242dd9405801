"""Messages to bytes and back: msgpack [version, type, field, …], bounded and strict.

What a peer sent is checked field by field against the message's declaration before anything else
sees it: kinds, ranges and lengths. msgpack itself takes no memory beyond the bytes at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints

import msgpack

from mphe.errors import EncodingError, MalformedMessage
from mphe.messages import Message
from mphe.parameters import MAX_CLIENTS, PROTOCOL_VERSION

MESSAGE_TYPES: tuple[type[Any], ...] = get_args(Message)
MAX_INTEGER = 1 << 53
MAX_TEXT = 1 << 12


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    kind = MESSAGE_TYPES.index(type(message))
    packed: bytes = msgpack.packb([PROTOCOL_VERSION, kind, *_values(message)], use_bin_type=True)
    return packed


def decode(data: bytes, sender: int) -> Message:
    """Return the message of exactly these bytes.

    Raises:
        MalformedMessage: they are no message of this version; names the sender.
    """
    try:
        return _decode(data)
    except EncodingError as error:
        raise MalformedMessage(sender, str(error)) from error


def _values(record: Any) -> list[Any]:
    """Return the fields of a message, nested records as lists."""
    return [_plain(getattr(record, field.name)) for field in fields(record)]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _values(value) if is_dataclass(value) else value


def _decode(data: bytes) -> Message:
    try:
        document = msgpack.unpackb(
            data, raw=False, use_list=True, strict_map_key=True, max_array_len=4 * MAX_CLIENTS,
            max_map_len=0, max_ext_len=0, max_str_len=MAX_TEXT,
        )  # fmt: skip
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise EncodingError(f"not a message: {type(error).__name__}") from error
    if not isinstance(document, list) or len(document) < 2:
        raise EncodingError("not a message: no version and type")
    version, kind, *values = document
    if version != PROTOCOL_VERSION or type(version) is not int:
        raise EncodingError(f"protocol version {version!r}, this program speaks {PROTOCOL_VERSION}")
    if type(kind) is not int or not 0 <= kind < len(MESSAGE_TYPES):
        raise EncodingError(f"unknown message type {kind!r}")
    message: Message = _record(MESSAGE_TYPES[kind], values)
    return message


def _record(cls: type[Any], values: Any) -> Any:
    """Return an instance of a message or nested record from a list of its fields."""
    readers = _readers(cls)  # type: ignore[arg-type]  # a class is hashable
    if not isinstance(values, list) or len(values) != len(readers):
        raise EncodingError(f"{cls.__name__} has {len(readers)} fields")
    return cls(*(reader(value) for reader, value in zip(readers, values, strict=True)))


@lru_cache
def _readers(cls: type[Any]) -> tuple[Callable[[Any], Any], ...]:
    """Return one reader for each field of a record."""
    hints = get_type_hints(cls)
    return tuple(
        _reader(hints[field.name], f"{cls.__name__}.{field.name}") for field in fields(cls)
    )


def _reader(hint: Any, name: str) -> Callable[[Any], Any]:
    """Return a function that checks a value against a type hint and converts it."""
    if get_origin(hint) is tuple:
        return _tuple_reader(_reader(get_args(hint)[0], name), name)
    if is_dataclass(hint) and isinstance(hint, type):
        return lambda value: _record(hint, value)

    def read(value: Any) -> Any:
        # bool is an int for isinstance, so the exact type is compared.
        if type(value) is not hint:
            raise EncodingError(f"{name} is a {type(value).__name__}, not a {hint.__name__}")
        if hint is int and not 0 <= value < MAX_INTEGER:
            raise EncodingError(f"{name} = {value} is out of range")
        return value

    return read


def _tuple_reader(read_item: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise EncodingError(f"{name} is not a list")
        return tuple(read_item(item) for item in value)

    return read
