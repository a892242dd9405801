"""Does the collective key decrypt what it encrypts, whoever is asked (docs/protocol.md, Setup)?

A message is encrypted under b, message and ciphertext derived from T by everybody, and decrypted
by B ∪ {j} for t-1 fixed members B and every other j. Each set that gives the message back lies on
one polynomial with B, so any t of the confirmed decryptors agree. One set alone would miss a
dealer who is unfair to somebody outside.
Nobody chooses the ciphertext, so a lying server learns nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mphe.arithmetic.ring import Element, Integers
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.machine import Output, Send
from mphe.scheme import decryption, packing
from mphe.scheme.rlwe import Ciphertext, CollectiveKey
from mphe.wire.messages import DecryptionRequest, Group

BASES = 2


def ciphertext(plan: Plan, key: CollectiveKey, transcript: bytes) -> tuple[Integers, Ciphertext]:
    """Return the message (length,) and its ciphertext that follow from T."""
    source = RandomSource(derive_seed("confirmation", transcript))
    layout = plan.encryption_layout(0)
    words = source.words(layout.length) >> np.uint64(64 - layout.slot_bits + 1)
    message: Integers = words.astype(np.int64)
    packed = packing.pack(layout, packing.arrange(layout, message))
    return message, key.encrypt(packed, source)


@dataclass
class Trials:
    """How far the confirmation has come.

    Attributes:
        attempt: of the last set that was asked.
        bases_tried: choices of B that no set was right with.
        sets: that are still wanted, by attempt.
        shares: what their members answered, block after block, by attempt.
    """

    attempt: int = 0
    bases_tried: int = 0
    sets: dict[int, tuple[int, ...]] = field(default_factory=dict)
    shares: dict[int, dict[int, list[Element]]] = field(default_factory=dict)


@dataclass(frozen=True)
class SetRecord:
    """A set that is still wanted, with what its members answered."""

    attempt: int
    active: tuple[int, ...]
    shares: tuple[kept.ShareRecord, ...]


@dataclass(frozen=True)
class TrialsRecord:
    """`Trials` between two messages."""

    attempt: int
    bases_tried: int
    sets: tuple[SetRecord, ...]


class Confirmation:
    """Asks sets of decryptors, and judges what they answer."""

    def __init__(self, plan: Plan, key: CollectiveKey, transcript: bytes, trials: Trials) -> None:
        """Derive the message and its ciphertext; `trials` is written to."""
        self._plan = plan
        self._ring = key.ring
        self._layout = plan.threshold_layout(0)
        self._dropped = plan.dropped_share
        self._threshold = plan.session.threshold
        self._limit = plan.session.confirmation_attempts
        self._transcript = transcript
        self._message, derived = ciphertext(plan, key, transcript)
        self._c0 = derived.c0
        self._trials = trials

    def record(self) -> TrialsRecord:
        """Return what is to be kept."""
        trials = self._trials
        sets = tuple(
            SetRecord(attempt, active, kept.write_shares(self._ring, trials.shares[attempt]))
            for attempt, active in sorted(trials.sets.items())
        )
        return TrialsRecord(trials.attempt, trials.bases_tried, sets)

    def resume(self, record: TrialsRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        attempts = [item.attempt for item in record.sets]
        ascending = attempts == sorted(set(attempts))
        newest = max(attempts, default=0)
        if not ascending or newest > record.attempt or record.bases_tried >= BASES:
            raise EncodingError("the sets that try out the key make no sense")
        trials, clients = self._trials, self._plan.session.num_clients
        trials.attempt, trials.bases_tried = record.attempt, record.bases_tried
        for item in record.sets:
            if len(kept.read_indices(item.active, clients)) != self._threshold:
                raise EncodingError("a set that tries out the key has the wrong size")
            trials.sets[item.attempt] = item.active
            trials.shares[item.attempt] = kept.read_shares(
                self._ring, self._layout, item.shares, item.active
            )

    def ask(self, able: list[int]) -> list[Output]:
        """Return requests to B ∪ {j} for all others j of the able; none when attempts run out.

        Args:
            able: at least t decryptors, sorted.
        """
        trials, size = self._trials, self._threshold - 1
        base = able[:size] if trials.bases_tried == 0 else able[len(able) - size :]
        others = [index for index in able if index not in base]
        trials.sets, trials.shares = {}, {}
        if trials.attempt + len(others) > self._limit:
            return []
        for index in others:
            trials.attempt += 1
            trials.sets[trials.attempt] = tuple(sorted((*base, index)))
            trials.shares[trials.attempt] = {}
        return [
            Send(index, self._request(attempt))
            for attempt, active in trials.sets.items()
            for index in active
        ]

    def _request(self, attempt: int) -> DecryptionRequest:
        """Return what one set is asked: nobody's sum, of a c1 that everybody derives."""
        nobody = (Group((), b""),)
        active = self._trials.sets[attempt]
        return DecryptionRequest(0, attempt, active, nobody, transcript=self._transcript)

    def expects(self, sender: int, attempt: int) -> bool:
        """Return whether a set that is still wanted waits for this answer."""
        return (
            sender in self._trials.sets.get(attempt, ())
            and sender not in self._trials.shares[attempt]
        )

    def wanted(self, attempt: int) -> bool:
        """Return whether a set has not been given up."""
        return attempt in self._trials.sets

    def add(self, sender: int, attempt: int, share: bytes) -> None:
        """Take one share.

        Raises:
            EncodingError: it does not parse.
        """
        read = decryption.read_blocks(self._ring, self._layout, share, self._dropped)
        self._trials.shares[attempt][sender] = read

    def waiting(self) -> set[int]:
        """Return the decryptors whose answers are missing."""
        return {
            index
            for attempt, active in self._trials.sets.items()
            for index in active
            if index not in self._trials.shares[attempt]
        }

    def drop(self, peers: Iterable[int]) -> bool:
        """Give up the sets with these members; return whether none is left."""
        hit = [attempt for attempt, active in self._trials.sets.items() if set(peers) & set(active)]
        for attempt in hit:
            del self._trials.sets[attempt], self._trials.shares[attempt]
        return not self._trials.sets

    def base(self) -> set[int]:
        """Return the members that all sets share."""
        sets = [set(active) for active in self._trials.sets.values()]
        return sets[0].intersection(*sets[1:])

    def confirmed(self) -> set[int]:
        """Return the members of all sets that gave the message back."""
        return {
            index
            for attempt, active in self._trials.sets.items()
            if self._matches(self._trials.shares[attempt])
            for index in active
        }

    def another_base(self) -> bool:
        """Return whether other fixed members should be tried, now that no set was right."""
        self._trials.bases_tried += 1
        return self._trials.bases_tried < BASES

    def _matches(self, shares: dict[int, list[Element]]) -> bool:
        total = decryption.aggregate_shares(list(shares.values()))
        try:
            values = decryption.finish(self._plan, self._ring, self._layout, [self._c0], total)
        except EncodingError:
            return False
        return bool(np.array_equal(values, self._message))
