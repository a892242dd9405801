"""What the server's roles say of rounds, for the program that runs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mphe.roles.machine import Event


@dataclass(frozen=True)
class Admitted(Event):
    """A client contributes from the next round on; it cannot decrypt."""

    sender: int


@dataclass(frozen=True)
class Closed(Event):
    """The round takes no more contributions; decryption begins."""

    round: int
    contributors: tuple[int, ...]


@dataclass(frozen=True)
class GroupSum:
    """The sum of one group of contributors.

    Attributes:
        contributors: whose updates are in it, sorted.
        total: int64 (length,); None when it was implausible, whoever decrypted it.
        reason: what was wrong with it, one line; empty when nothing was.
    """

    contributors: tuple[int, ...]
    total: NDArray[np.int64] | None
    reason: str = ""


@dataclass(frozen=True)
class Kept(Event):
    """Too few decryptors are there to end a decryption that has begun: the sum waits for them."""

    round: int
    awaited: tuple[int, ...]


@dataclass(frozen=True)
class Retried(Event):
    """Others are asked to decrypt; store the server's state before they are."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Overlap(Event):
    """This sum and one that was lost differ by these few clients, which could not be helped."""

    round: int
    exposed: tuple[int, ...]


@dataclass(frozen=True)
class Summed(Event):
    """The sum of exactly these contributions.

    Attributes:
        round: its number.
        contributors: whose updates are in it, sorted.
        total: int64 (length,), or float64 without encryption.
        attempts: decryption attempts, 0 without encryption.
        groups: where the parameters allow groups, every one, also those whose sum is not in total.
    """

    round: int
    contributors: tuple[int, ...]
    total: NDArray[np.int64] | NDArray[np.float64]
    attempts: int
    groups: tuple[GroupSum, ...] = ()


@dataclass(frozen=True)
class Abandoned(Event):
    """The round ended without a sum; the model is unchanged.

    Attributes:
        round: its number.
        reason: one line.
        begun: whether decryption had begun, so that somebody may know the sum.
        contributors: whose updates were in it.
        missing: whose absence caused it.
        attempts: decryption attempts.
    """

    round: int
    reason: str
    begun: bool
    contributors: tuple[int, ...]
    missing: tuple[int, ...]
    attempts: int


@dataclass(frozen=True)
class Excluded(Event):
    """A client that was found out takes no further part.

    Attributes:
        client: its index.
        reason: what it did, one line.
    """

    client: int
    reason: str
