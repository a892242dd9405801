"""What all parties of a session must agree on, and what follows from it without a ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

from mphe.errors import ParameterError

PROTOCOL_VERSION = 3
MAX_CLIENTS = 1 << 12
MAX_LENGTH = 1 << 28
MAX_ROUNDS = 1 << 20


@dataclass(frozen=True)
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
        max_corrupt: c clients that may collude with a lying server; not used otherwise.
    """

    num_clients: int
    threshold: int
    length: int
    rounds: int
    robust: bool = True
    encryption: str = "hybrid"
    value_bits: int = 16
    decryptors: int = 0
    min_contributors: int = 0
    capacity: int = 0
    max_attempts: int = 4
    verified: bool = False
    max_corrupt: int = -1

    def __post_init__(self) -> None:
        """Fill in the defaults that depend on other fields, and check types and ranges."""
        for field in fields(self):
            # 4.0 == 4 == True + 3, but their digests would differ.
            if type(getattr(self, field.name)).__name__ != field.type:
                raise ParameterError(f"{field.name} must be of type {field.type}")
        object.__setattr__(self, "decryptors", self.decryptors or self.num_clients)
        object.__setattr__(self, "capacity", self.capacity or self.num_clients)
        if self.max_corrupt == -1:
            object.__setattr__(self, "max_corrupt", self._default_corrupt())
        if not self.min_contributors:
            object.__setattr__(self, "min_contributors", self._default_minimum())
        for holds, reason in self._requirements():
            if not holds:
                raise ParameterError(reason)

    def _default_corrupt(self) -> int:
        """Return the largest c with 2t > k + c that leaves two honest clients."""
        if not self.verified:
            return 0
        return min(2 * self.threshold - self.decryptors - 1, self.num_clients - 2)

    def _default_minimum(self) -> int:
        """Return max(2, t); with a lying server two more than the corrupt, and at least 3."""
        minimum = max(3, self.max_corrupt + 2) if self.verified else max(2, self.threshold)
        return min(minimum, self.num_clients)

    def _requirements(self) -> Iterator[tuple[bool, str]]:
        """Yield what must hold, beside what to say when it does not."""
        n, t, k = self.num_clients, self.threshold, self.decryptors
        yield 2 <= n <= MAX_CLIENTS, f"{n} clients; use 2 to {MAX_CLIENTS}"
        yield 2 <= k <= n, f"{k} decryptors among {n} clients; use 2 to {n}"
        yield 2 <= t <= k, f"threshold {t} with {k} decryptors; use 2 to {k}"
        yield self.robust or t == k == n, "without robustness every client must decrypt"
        yield n <= self.capacity <= MAX_CLIENTS, f"capacity {self.capacity}; use {n} or more"
        yield 2 <= self.min_contributors <= n, f"min_contributors must lie in 2..{n}"
        yield 1 <= self.length <= MAX_LENGTH, f"{self.length} values; use 1 to {MAX_LENGTH}"
        yield 4 <= self.value_bits <= 24, f"value_bits {self.value_bits}; use 4 to 24"
        yield 1 <= self.rounds <= MAX_ROUNDS, f"{self.rounds} rounds; use 1 to {MAX_ROUNDS}"
        yield 1 <= self.max_attempts <= 64, f"{self.max_attempts} attempts; use 1 to 64"
        yield self.encryption in ("hybrid", "direct"), "encryption is hybrid or direct"
        if self.verified:
            yield from self._requirements_against_liars()

    def _requirements_against_liars(self) -> Iterator[tuple[bool, str]]:
        """Yield what verified aggregates need: one quorum a round, two honest updates in a sum."""
        n, t, k, c = self.num_clients, self.threshold, self.decryptors, self.max_corrupt
        yield n >= 3, "verified aggregates need at least 3 clients"
        yield (
            c >= 0 and 2 * t > k + c,
            f"{t} of {k} decryptors cannot withstand a lying server with {max(c, 0)} corrupt "
            f"clients, two groups could decrypt two sums; use t above {(k + max(c, 0)) / 2:g}",
        )
        yield (
            c + 2 <= self.min_contributors,
            f"a sum of {self.min_contributors} updates, {c} of them corrupt, hides too little; use "
            f"min_contributors {c + 2} or more of {n} clients, or a smaller max_corrupt",
        )

    @cached_property
    def slot_bits(self) -> int:
        """Bits of a payload slot: a sum of `capacity` values never overflows it."""
        return self.value_bits + (self.capacity - 1).bit_length()

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
