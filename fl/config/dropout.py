"""`--simulate_dropout`: which clients leave which round on purpose, for experiments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from fl.config.flags import UsageError

if TYPE_CHECKING:
    from mphe import SessionParameters


def dropped_count(part: float, clients: int) -> int:
    """Return floor(part * clients), of the decimal that was typed."""
    return math.floor(Fraction(repr(part)) * clients)


@dataclass(frozen=True)
class Dropout:
    """Which of the clients 1..clients leave which round: a part of them, drawn by a seed."""

    part: float
    clients: int
    seed: int

    def of(self, round: int) -> frozenset[int]:
        """Return the clients that leave a round; drawn anew for each round."""
        count = dropped_count(self.part, self.clients)
        if count == 0:
            return frozenset()
        # Here, because every start checks this flag and NumPy takes long to load.
        from mphe.update import Stream, generator

        rng = generator(Stream.DROPOUT, self.seed, round)
        return frozenset((1 + rng.choice(self.clients, count, replace=False)).tolist())


def check_dropout(dropout: Dropout, session: SessionParameters) -> None:
    """Refuse a part that leaves no round enough clients; UsageError."""
    part, clients, threshold = dropout.part, dropout.clients, session.threshold
    if not 0 <= part < 1:
        raise UsageError(
            f"--simulate_dropout must be at least 0 and below 1, not {part:g}: somebody has to stay"
        )
    count = dropped_count(part, clients)
    needed = max(threshold, session.min_contributors)
    if clients - count < needed:
        raise UsageError(
            f"--simulate_dropout {part:g} leaves {clients - count} of {clients} clients in a round "
            f"that needs {needed}: lower it, or lower --resiliency or --min_contributors"
        )
    if session.decryptors - count < threshold:
        raise UsageError(
            f"--simulate_dropout {part:g} may leave {max(0, session.decryptors - count)} of "
            f"{session.decryptors} decryptors where {threshold} are needed: lower it, or raise "
            "--decryptors"
        )
