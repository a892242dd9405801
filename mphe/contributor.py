"""A client's part in a round: encrypt one update under the session's keys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mphe import packing
from mphe.errors import (
    EncodingError,
    LocalProtocolError,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.machine import Event, Machine, Output, Send, Transitions
from mphe.messages import SERVER, Contribution, Message, RoundEnd, RoundStart
from mphe.noise import KEY_PAIRS
from mphe.onetime import OneTimeCipher
from mphe.parameters import Plan
from mphe.ring import Small
from mphe.rlwe import Ciphertext, CollectiveKey
from mphe.sampling import SEED_BYTES, RandomSource


@dataclass(frozen=True)
class Payload:
    """The encrypted parts of a contribution, as on the wire."""

    c0: bytes
    c1: bytes
    body: bytes


class Cipher(Protocol):
    """What turns an update into a payload; `Encryptor`, or nothing at all for comparison."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return the payload of one update."""


class Encryptor:
    """Encrypts update vectors, in hybrid or direct mode; keeps no state between rounds."""

    def __init__(self, plan: Plan, key: CollectiveKey, crs_seed: bytes) -> None:
        """Prepare the one-time cipher where the plan has one."""
        self.plan = plan
        self._key = key
        self._cipher = OneTimeCipher(plan, crs_seed) if plan.payload else None

    def encrypt(self, values: Small, source: RandomSource) -> Payload:
        """Return the payload of one update.

        Args:
            values: int64 (length,) in [0, 2^value_bits).
            source: of every key and error of this contribution.

        Raises:
            EncodingError: a value is out of range, or there are too few or too many.
        """
        _check_range(values, self.plan.session.value_bits)
        if self._cipher is None:
            return Payload(*self._under_collective_key(values, source), b"")
        cipher, layout = self._cipher, self._cipher.layout
        slots = packing.arrange(layout, values)
        key = cipher.gen_key(source)
        prepared = cipher.prepare(key)
        bodies = []
        for block in range(layout.blocks):
            part = slots[:, packing.block_slice(layout, block)]
            body = cipher.encrypt_block(block, prepared, part, source)
            bodies.append(cipher.ring.to_bytes(body, self.plan.dropped_body))
        c0, c1 = self._under_collective_key(key + KEY_PAIRS, source)
        return Payload(c0, c1, b"".join(bodies))

    def _under_collective_key(self, values: Small, source: RandomSource) -> tuple[bytes, bytes]:
        """Return c0 and c1 of all blocks, each with fresh u, e0 and e1."""
        layout, ring = self.plan.threshold, self._key.ring
        slots = packing.arrange(layout, values)
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for block in range(layout.blocks):
            packed = packing.pack(layout, slots[:, packing.block_slice(layout, block)])
            ciphertext: Ciphertext = self._key.encrypt(packed, source)
            used = layout.block_coefficients(block)
            parts[0].append(ring.to_bytes(ciphertext.c0[:, :used], self.plan.dropped_c0))
            parts[1].append(ring.to_bytes(ciphertext.c1))
        return b"".join(parts[0]), b"".join(parts[1])


def _check_range(values: NDArray[np.int64], bits: int) -> None:
    """Raise EncodingError unless every value fits its slot: one that does not spoils another."""
    if values.size and not 0 <= values.min() <= values.max() < 1 << bits:
        raise EncodingError(f"values must lie in [0, 2^{bits}); quantise the update first")


class State(Enum):
    """What a contributor does."""

    IDLE = "idle"
    WORKING = "working"
    SENT = "sent"


@dataclass(frozen=True)
class TrainOn(Event):
    """A round started: compute an update of this model, then call `contribute`."""

    round: int
    model: bytes


@dataclass(frozen=True)
class Counted(Event):
    """A round ended; says whether our contribution is in the sum."""

    round: int
    counted: bool


class Contributor(Machine[State]):
    """Follows the rounds; a newer round replaces an unfinished one."""

    TRANSITIONS: ClassVar[Transitions] = {
        (State.IDLE, RoundStart): State.WORKING,
        (State.WORKING, RoundStart): State.WORKING,
        (State.SENT, RoundStart): State.WORKING,
        (State.IDLE, RoundEnd): State.IDLE,
        (State.WORKING, RoundEnd): State.IDLE,
        (State.SENT, RoundEnd): State.IDLE,
        (State.WORKING, "contribute"): State.SENT,
    }

    def __init__(self, index: int, encryptor: Cipher, source: RandomSource) -> None:
        """Wait for the first round.

        Args:
            index: of this client.
            encryptor: of this session.
            source: of every key and error of its contributions.
        """
        super().__init__(State.IDLE)
        self.index = index
        self.round = 0
        self._encryptor = encryptor
        self._source = source
        self._round_source = source
        self._last_c1 = b""
        self._handlers = {RoundStart: self._on_start, RoundEnd: self._on_end}

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server."""
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server speaks to a client")
        return super().receive(sender, message)

    def _on_start(self, sender: int, message: RoundStart) -> list[Output]:
        if message.round <= self.round:
            raise RemoteProtocolError(sender, f"round {message.round} after round {self.round}")
        self.round = message.round
        # A stream of its own, so that encryption may run in another thread than `receive`.
        self._round_source = RandomSource(self._source.bytes(SEED_BYTES))
        return [TrainOn(message.round, message.model)]

    def _on_end(self, sender: int, message: RoundEnd) -> list[Output]:
        if message.round != self.round:
            raise RemoteProtocolError(sender, f"end of round {message.round} in {self.round}")
        return [Counted(message.round, self.index in message.contributors)]

    def encrypt(self, values: NDArray[Any]) -> Payload:
        """Return the payload of an update; may run beside `receive`, in another thread."""
        return self._encryptor.encrypt(values, self._round_source)

    def contribute(self, round: int, payload: Payload, note: bytes = b"") -> list[Output]:
        """Return the contribution, or nothing when its round is over.

        Raises:
            LocalProtocolError: no round waits for a contribution, or this payload was sent before.
        """
        if round != self.round or self.state is State.IDLE:
            return []
        if payload.c1 and payload.c1 == self._last_c1:
            raise LocalProtocolError("a payload serves one round: its keys must never be reused")
        self._fire("contribute")
        self._last_c1 = payload.c1
        return [Send(SERVER, Contribution(round, payload.c0, payload.c1, payload.body, note))]
