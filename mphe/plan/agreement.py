"""What all parties of a session must agree on, and what follows from it without a ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

from mphe.errors import OutOfRange, ParameterError

PROTOCOL_VERSION = 4
MAX_CLIENTS = 1 << 12
MAX_LENGTH = 1 << 28
MAX_ROUNDS = 1 << 20
MAX_ATTEMPTS = 64
MAX_GROUPS = 64
VALUE_BITS = (4, 24)
ENCRYPTIONS = ("hybrid", "direct")
# Follow from the other fields where they are None.
_DERIVED = ("decryptors", "min_contributors", "capacity", "max_corrupt")


def _default_corrupt(n: int, t: int, k: int, verified: bool) -> int:
    """Return the largest c with 2t > k + c that leaves two honest clients; 0 without liars."""
    return min(2 * t - k - 1, n - 2) if verified else 0


def _default_minimum(n: int, t: int, c: int, verified: bool) -> int:
    """Return t + 1, so that t - 1 who pool what they know leave two updates in a sum.

    Of all n at most n - 1, or one client's absence would stop training. With a lying server two
    more than the corrupt, and at least 3.
    """
    return min(max(3, c + 2), n) if verified else max(2, min(t + 1, n - 1))


@dataclass(frozen=True, init=False)
class SessionParameters:
    """What all parties must agree on; the digest of its plan enters every signature and key.

    Attributes:
        num_clients: n, indices 1..n.
        threshold: t decryptors are needed.
        length: values in an update.
        rounds: training rounds at most.
        robust: Shamir shares (True) or additive keys, all n needed (False).
        encryption: "hybrid" or "direct" (docs/protocol.md, A round).
        value_bits: bits of a quantised value.
        decryptors: the first so many clients hold shares.
        min_contributors: a sum of fewer updates is never decrypted.
        capacity: contributors that the slots and noise bounds leave room for.
        max_attempts: decryption attempts a round.
        verified: the server may lie (docs/protocol.md, Verified aggregates).
        max_corrupt: c clients that may collude with a lying server, and that naming reckons with.
        max_groups: groups that the contributors of a round are split into at most; 1: never.
    """

    num_clients: int
    threshold: int
    length: int
    rounds: int
    robust: bool
    encryption: str
    value_bits: int
    decryptors: int
    min_contributors: int
    capacity: int
    max_attempts: int
    verified: bool
    max_corrupt: int
    max_groups: int

    def __init__(
        self,
        num_clients: int,
        threshold: int,
        length: int,
        rounds: int,
        robust: bool = True,
        encryption: str = "hybrid",
        value_bits: int = 16,
        decryptors: int | None = None,
        min_contributors: int | None = None,
        capacity: int | None = None,
        max_attempts: int = 8,
        verified: bool = False,
        max_corrupt: int | None = None,
        max_groups: int = 1,
    ) -> None:
        """Fill in what is None, then check types and ranges.

        Raises:
            OutOfRange: one field does not fit, alone or beside the others.
            ParameterError: a field is of another type.
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        for field in fields(self):
            # 4.0 == 4 == True + 3, but their digests would differ.
            value = given[field.name]
            left_out = value is None and field.name in _DERIVED
            if not left_out and type(value).__name__ != field.type:
                raise ParameterError(f"{field.name} must be of type {field.type}")
        n, t = num_clients, threshold
        k = n if decryptors is None else decryptors
        c = _default_corrupt(n, t, k, verified) if max_corrupt is None else max_corrupt
        defaults = {
            "decryptors": n,
            "min_contributors": _default_minimum(n, t, c, verified),
            "capacity": n,
            "max_corrupt": c,
        }
        vars(self).update(
            defaults | {name: value for name, value in given.items() if value is not None}
        )
        self._check()

    def _check(self) -> None:
        for field_name, low, high, reason in self._ranges():
            if not low <= getattr(self, field_name) <= high:
                raise OutOfRange(field_name, low, high, reason)
        if self.encryption not in ENCRYPTIONS:
            raise ParameterError(f"encryption is {' or '.join(ENCRYPTIONS)}")

    def _ranges(self) -> Iterator[tuple[str, int, int, str]]:
        """Yield a field, the least and most it may be, and what to say when it is not."""
        n, t, k = self.num_clients, self.threshold, self.decryptors
        yield "num_clients", 2, MAX_CLIENTS, f"{n} clients; use 2 to {MAX_CLIENTS}"
        yield "decryptors", 2, n, f"{k} decryptors among {n} clients; use 2 to {n}"
        if not self.robust:
            yield "decryptors", n, n, "without robustness every client must decrypt"
        yield "threshold", 2, k, f"threshold {t} with {k} decryptors; use 2 to {k}"
        if not self.robust:
            yield "threshold", n, n, "without robustness every client must decrypt"
        yield "capacity", n, MAX_CLIENTS, f"capacity {self.capacity}; use {n} or more"
        yield "length", 1, MAX_LENGTH, f"{self.length} values; use 1 to {MAX_LENGTH}"
        yield "value_bits", *VALUE_BITS, f"value_bits {self.value_bits}; use 4 to 24"
        yield "rounds", 1, MAX_ROUNDS, f"{self.rounds} rounds; use 1 to {MAX_ROUNDS}"
        yield "max_attempts", 1, MAX_ATTEMPTS, f"{self.max_attempts} attempts; use 1 to 64"
        if self.verified:
            yield from self._ranges_against_liars()
        yield "min_contributors", 2, n, f"min_contributors must lie in 2..{n}"
        yield "max_corrupt", 0, n - 2, f"max_corrupt {self.max_corrupt}; use 0 to {n - 2}"
        yield from self._ranges_of_groups()

    def _ranges_of_groups(self) -> Iterator[tuple[str, int, int, str]]:
        """Yield how many groups there can be: more would cost noise, and never exist."""
        n, m, groups = self.num_clients, self.min_contributors, self.max_groups
        yield "max_groups", 1, MAX_GROUPS, f"max_groups {groups}; use 1 to {MAX_GROUPS}"
        few = (
            f"{n} clients make at most {n // m} groups of at least {m}, not {groups}; use "
            f"max_groups {n // m} or less, or min_contributors {n // groups} or less"
        )
        yield "max_groups", 1, n // m, few

    def _ranges_against_liars(self) -> Iterator[tuple[str, int, int, str]]:
        """Yield what verified aggregates need: one quorum a round, two honest updates in a sum."""
        n, t, k, c = self.num_clients, self.threshold, self.decryptors, self.max_corrupt
        yield "num_clients", 3, MAX_CLIENTS, "verified aggregates need at least 3 clients"
        split = (
            f"{t} of {k} decryptors cannot withstand a lying server with {max(c, 0)} corrupt "
            f"clients, two groups could decrypt two sums; use t above {(k + max(c, 0)) / 2:g}"
        )
        too_little = (
            f"a sum of {self.min_contributors} updates, {c} of them corrupt, hides too little; use "
            f"min_contributors {c + 2} or more of {n} clients, or a smaller max_corrupt"
        )
        reason = too_little if 0 <= c < 2 * t - k else split
        yield "max_corrupt", 0, _default_corrupt(n, t, k, True), reason
        yield "min_contributors", c + 2, n, too_little

    @cached_property
    def slot_bits(self) -> int:
        """Bits of a payload slot: a sum of `capacity` values never overflows it."""
        return self.value_bits + (self.capacity - 1).bit_length()

    @property
    def culprits(self) -> int:
        """Cheating clients that naming reckons with: if there are more, nobody is named."""
        return max(1, self.max_corrupt)

    @property
    def confirmations(self) -> int:
        """Decryptions that confirm the collective key: one for each j ≥ t."""
        return self.decryptors - self.threshold + 1

    @property
    def confirmation_attempts(self) -> int:
        """Confirming requests that a decryptor answers.

        All of them for two choices of the members they share, and again for each that vanishes.
        """
        return self.confirmations * (self.confirmations + 3) // 2
