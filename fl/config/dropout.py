"""`--simulate_dropout`: which clients leave which round on purpose, for experiments."""

import math
from collections.abc import Callable
from fractions import Fraction

from fl.config.flags import UsageError


def dropped_count(part: float, clients: int) -> int:
    """Return floor(part * clients), of the decimal that was typed."""
    return math.floor(Fraction(repr(part)) * clients)


def drops_out(part: float, clients: int, seed: int, round: int) -> frozenset[int]:
    """Return the clients, of 1..clients, that leave a round; drawn anew for each round."""
    count = dropped_count(part, clients)
    if count == 0:
        return frozenset()
    # Here, because every start checks this flag and NumPy takes long to load.
    from mphe.update.streams import Stream, generator

    rng = generator(Stream.DROPOUT, seed, round)
    return frozenset((1 + rng.choice(clients, count, replace=False)).tolist())


def leaver(part: float, clients: int, seed: int, index: int) -> Callable[[int], bool]:
    """Return a function of the round: whether this client leaves it on purpose."""
    return lambda round: index in drops_out(part, clients, seed, round)


def check_dropout(
    part: float, clients: int, decryptors: int, threshold: int, min_contributors: int
) -> None:
    """Refuse a part that leaves no round enough clients; UsageError."""
    if not 0 <= part < 1:
        raise UsageError(
            f"--simulate_dropout must be at least 0 and below 1, not {part:g}: somebody has to stay"
        )
    count = dropped_count(part, clients)
    if clients - count < max(threshold, min_contributors):
        raise UsageError(
            f"--simulate_dropout {part:g} leaves {clients - count} of {clients} clients in a round "
            f"that needs {max(threshold, min_contributors)}: lower it, or lower --resiliency or "
            "--min_contributors"
        )
    if decryptors - count < threshold:
        raise UsageError(
            f"--simulate_dropout {part:g} may leave {max(0, decryptors - count)} of {decryptors} "
            f"decryptors where {threshold} are needed: lower it, or raise --decryptors"
        )
