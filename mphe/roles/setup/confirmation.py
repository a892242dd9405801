"""Does the collective key decrypt what it encrypts, whoever is asked (docs/protocol.md, Setup)?

A message is encrypted under b, message and ciphertext derived from T by everybody, and decrypted
by B ∪ {j} for t-1 fixed members B and every other j. Each set that gives the message back lies on
one polynomial with B, so any t of the confirmed decryptors agree. One set alone would miss a
dealer who is unfair to somebody outside.
Nobody chooses the ciphertext, so a lying server learns nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mphe.arithmetic.ring import Limbs, Small
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles.machine import Output, Send
from mphe.scheme import decryption, packing
from mphe.scheme.rlwe import Ciphertext, CollectiveKey
from mphe.wire.messages import DecryptionRequest, Group

BASES = 2


def ciphertext(plan: Plan, key: CollectiveKey, transcript: bytes) -> tuple[Small, Ciphertext]:
    """Return the message (length,) and its ciphertext that follow from T."""
    source = RandomSource(derive_seed("confirmation", transcript))
    layout = plan.encryption_layout(0)
    words = source.words(layout.length) >> np.uint64(64 - layout.slot_bits + 1)
    message: Small = words.astype(np.int64)
    packed = packing.pack(layout, packing.arrange(layout, message))
    return message, key.encrypt(packed, source)


class Confirmation:
    """The sets that are asked, and what they answered."""

    def __init__(self, plan: Plan, key: CollectiveKey, transcript: bytes) -> None:
        """Derive the message and its ciphertext."""
        self._plan = plan
        self._ring = key.ring
        self._layout = plan.threshold_layout(0)
        self._dropped = plan.dropped_share
        self._threshold = plan.session.threshold
        self._limit = plan.session.confirmation_attempts
        self._transcript = transcript
        self._message, derived = ciphertext(plan, key, transcript)
        self._c0 = derived.c0
        self.attempt = 0
        self._bases_tried = 0
        self._sets: dict[int, tuple[int, ...]] = {}
        self._shares: dict[int, dict[int, list[Limbs]]] = {}

    def ask(self, able: list[int]) -> list[Output]:
        """Return requests to B ∪ {j} for all others j of the able; none when attempts run out.

        Args:
            able: at least t decryptors, sorted.
        """
        size = self._threshold - 1
        base = able[:size] if self._bases_tried == 0 else able[len(able) - size :]
        others = [index for index in able if index not in base]
        self._sets, self._shares = {}, {}
        if self.attempt + len(others) > self._limit:
            return []
        for index in others:
            self.attempt += 1
            self._sets[self.attempt] = tuple(sorted((*base, index)))
            self._shares[self.attempt] = {}
        return [
            Send(index, self._request(attempt))
            for attempt, active in self._sets.items()
            for index in active
        ]

    def _request(self, attempt: int) -> DecryptionRequest:
        """Return what one set is asked: nobody's sum, of a c1 that everybody derives."""
        nobody = (Group((), b""),)
        active = self._sets[attempt]
        return DecryptionRequest(0, attempt, active, nobody, transcript=self._transcript)

    def expects(self, sender: int, attempt: int) -> bool:
        """Return whether a set that is still wanted waits for this answer."""
        return sender in self._sets.get(attempt, ()) and sender not in self._shares[attempt]

    def wanted(self, attempt: int) -> bool:
        """Return whether a set has not been given up."""
        return attempt in self._sets

    def add(self, sender: int, attempt: int, share: bytes) -> None:
        """Take one share.

        Raises:
            EncodingError: it does not parse.
        """
        read = decryption.read_blocks(self._ring, self._layout, share, self._dropped)
        self._shares[attempt][sender] = read

    def waiting(self) -> set[int]:
        """Return the decryptors whose answers are missing."""
        return {
            index
            for attempt, active in self._sets.items()
            for index in active
            if index not in self._shares[attempt]
        }

    def drop(self, peers: Iterable[int]) -> bool:
        """Give up the sets with these members; return whether none is left."""
        hit = [attempt for attempt, active in self._sets.items() if set(peers) & set(active)]
        for attempt in hit:
            del self._sets[attempt], self._shares[attempt]
        return not self._sets

    def base(self) -> set[int]:
        """Return the members that all sets share."""
        sets = [set(active) for active in self._sets.values()]
        return sets[0].intersection(*sets[1:])

    def confirmed(self) -> set[int]:
        """Return the members of all sets that gave the message back."""
        return {
            index
            for attempt, active in self._sets.items()
            if self._matches(self._shares[attempt])
            for index in active
        }

    def another_base(self) -> bool:
        """Return whether other fixed members should be tried, now that no set was right."""
        self._bases_tried += 1
        return self._bases_tried < BASES

    def _matches(self, shares: dict[int, list[Limbs]]) -> bool:
        total = decryption.aggregate_shares(list(shares.values()))
        try:
            values = decryption.finish(self._plan, self._ring, self._layout, [self._c0], total)
        except EncodingError:
            return False
        return bool(np.array_equal(values, self._message))
