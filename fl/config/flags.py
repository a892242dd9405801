"""How one flag of the command line is read: strictly, or refused in one line."""

import dataclasses
import ipaddress
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from fl.config.exits import Refused


class UsageError(Refused):
    """What the user typed cannot work; the message is one line that says what to do."""


DATASETS = ("auto", "mnist", "mnist5k", "npz:PATH", "FILE.py:FUNCTION")


def true_or_false(text: str) -> bool:
    """Read exactly True or False; ValueError otherwise."""
    if text not in ("True", "False"):
        raise ValueError(f"say True or False, not {text!r}")
    return text == "True"


def whole_number(text: str) -> int:
    """Read a whole number in plain digits; ValueError otherwise."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"give a whole number, not {text!r}")
    return int(text)


def real(text: str) -> float:
    """Read a finite number; ValueError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"give a finite number, not {text!r}")
    return value


def one_of(words: Collection[str]) -> Callable[[str], str]:
    """Return a reader that accepts these words only and lists them otherwise."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"choose one of {', '.join(words)}, not {text!r}")
        return text

    return read


def dataset_name(text: str) -> str:
    """Read auto, mnist, mnist5k, npz:PATH or FILE.py:FUNCTION; ValueError otherwise."""
    if (text.startswith("npz:") and len(text) > len("npz:")) or is_reference(text):
        return text
    return one_of(DATASETS)(text)


def is_reference(text: str) -> bool:
    """Return whether a word has the form FILE.py:FUNCTION."""
    file, _, function = text.rpartition(":")
    return len(file) > len(".py") and file.endswith(".py") and function.isidentifier()


def model_name(text: str) -> str:
    """Read cnn or FILE.py:FUNCTION; ValueError otherwise."""
    if text != "cnn" and not is_reference(text):
        raise ValueError(f"say cnn or FILE.py:FUNCTION, not {text!r}")
    return text


def aggregator_name(text: str) -> str:
    """Read mean, median, trimmed_mean:B or norm_filter; ValueError otherwise."""
    from mphe.update import GroupAggregator  # Here, because NumPy comes with it.

    return str(GroupAggregator.parse(text))


def split_address(text: str) -> tuple[str, int]:
    """Split host:port or [IPv6]:port into host and port; ValueError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"\[[^\s\[\]]+\]|[^\s:/\[\]]+", host):
        raise ValueError(f"write host:port, such as localhost:8080, not {text!r}")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"choose a port between 1 and 65535, not {port!r}")
    bare = host.strip("[]")
    if host != bare or re.fullmatch(r"[0-9.]+", host):
        try:
            numeric = ipaddress.ip_address(bare)
        except ValueError:
            raise ValueError(f"{bare!r} is not an IP address") from None
        if (host != bare) != (numeric.version == 6):
            raise ValueError(f"brackets are for IPv6 only: write {bare}:{port}")
    return bare, int(port)


def address(text: str) -> str:
    """Check host:port and return it unchanged; ValueError otherwise."""
    split_address(text)
    return text


def path(text: str) -> str:
    """Read a path that is not empty; ValueError otherwise."""
    if not text.strip():
        raise ValueError("name a directory or file")
    return text


def flag(read: Callable[[str], Any], explain: str, *default: Any) -> Any:
    """Return a dataclass field that knows how to read and explain its flag."""
    metadata = {"read": read, "help": explain}
    if not default:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default[0], metadata=metadata)
