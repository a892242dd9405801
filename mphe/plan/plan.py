"""The plan that follows from what a session agrees on: rings, slots, noise and bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil, log2

from mphe.arithmetic.noise import (
    KEY_PAIRS,
    RELAXATION,
    aggregate_noise,
    plaintext_scale,
    proof_bytes,
    smudging_deviation,
    smudging_widths,
    verified_noise,
)
from mphe.arithmetic.rings import DATA_RING, KEY_RING, LARGE_RING, RINGS, RingParameters
from mphe.errors import ParameterError
from mphe.plan.agreement import PROTOCOL_VERSION, SessionParameters

SMUDGING_KAPPA = 64
MIN_DECRYPTION_BUDGET = 1 << 12
EXCESS_BITS = 6
"""Bits above the last slot that an honest sum leaves empty."""
MAX_CHECKED_NOISE_BITS = 62
MIN_CHECKED_COEFFICIENTS = 32


@dataclass(frozen=True)
class SlotLayout:
    """Where values lie in a coefficient: `slots` of `slot_bits` bits above `noise_bits`.

    Attributes:
        ring: the ring whose coefficients carry the slots.
        noise_bits: log2 of the factor in front of the payload.
        slot_bits: bits of a slot.
        slots: slots of a coefficient.
        length: values to be carried.
    """

    ring: RingParameters
    noise_bits: int
    slot_bits: int
    slots: int
    length: int

    @property
    def coefficients(self) -> int:
        """Coefficients that carry payload, over all blocks."""
        return ceil(self.length / self.slots)

    @property
    def blocks(self) -> int:
        """Ring elements needed."""
        return ceil(self.coefficients / self.ring.degree)

    def block_coefficients(self, block: int) -> int:
        """Coefficients that carry payload in one block."""
        return min(self.ring.degree, self.coefficients - block * self.ring.degree)


@dataclass(frozen=True)
class Plan:
    """Everything derived from the session's parameters; never set by hand.

    Attributes:
        session: what it was derived from.
        threshold: layout of what is encrypted under the collective key.
        payload: layout of what the one-time key encrypts; None in direct mode.
        budget: τ, decryptions in the session, of any ciphertext by any active set.
        noise: E, bound on the noise of an aggregate.
        smudging: σ of the discrete Gaussian.
        dropped_c0: low bytes that c0 leaves out.
        dropped_share: low bytes that a decryption share leaves out.
        dropped_body: low bytes that a body leaves out.
    """

    session: SessionParameters
    threshold: SlotLayout
    payload: SlotLayout | None
    budget: int
    noise: float
    smudging: float
    dropped_c0: int
    dropped_share: int
    dropped_body: int

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of version, parameters and all that follows from them, as canonical JSON.

        Two parties whose planners differ part at the first message. Floats enter as integers that
        do not depend on the last bits of a logarithm.
        """
        derived = {
            "threshold": asdict(self.threshold),
            "payload": asdict(self.payload) if self.payload else None,
            "budget": self.budget,
            "noise": _thousandths(self.noise),
            "smudging": _thousandths(self.smudging),
            "dropped_c0": self.dropped_c0,
            "dropped_share": self.dropped_share,
            "dropped_body": self.dropped_body,
        }
        document = [PROTOCOL_VERSION, asdict(self.session), derived]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()

    def threshold_layout(self, round: int) -> SlotLayout:
        """Return what a decryption of that round carries; round 0 confirms one full block."""
        if round:
            return self.threshold
        return replace(self.threshold, length=self.threshold.ring.degree * self.threshold.slots)

    @property
    def scaling(self) -> int:
        """What (c0, c1) is multiplied by before it is decrypted."""
        return RELAXATION if self.session.verified else 1

    def encryption_layout(self, round: int) -> SlotLayout:
        """Return where values are put in that round, so that `scaling` moves them in place."""
        layout = self.threshold_layout(round)
        return replace(layout, noise_bits=layout.noise_bits - self.scaling.bit_length() + 1)

    @property
    def proof_bytes(self) -> int:
        """Bytes of the proofs in one contribution."""
        if not self.session.verified:
            return 0
        return self.threshold.blocks * proof_bytes(self.threshold.ring.degree)

    @property
    def answers(self) -> int:
        """Ciphertexts that one decryptor may help to decrypt in the session."""
        return self.budget // self.session.confirmations

    @property
    def key_bytes(self) -> int:
        """Bytes of the ciphertexts under the collective key in one contribution."""
        layout = self.threshold
        width = layout.ring.bits // 8
        return layout.blocks * layout.ring.degree * width + layout.coefficients * (
            width - self.dropped_c0
        )

    @property
    def body_bytes(self) -> int:
        """Bytes of the bodies in one contribution."""
        if self.payload is None:
            return 0
        return self.payload.coefficients * (self.payload.ring.bits // 8 - self.dropped_body)

    @property
    def upload_bytes(self) -> int:
        """Bytes of one contribution, without framing."""
        return self.key_bytes + self.body_bytes + self.proof_bytes

    @property
    def share_bytes(self) -> int:
        """Bytes of one decryption share, without framing."""
        return self.threshold.coefficients * (self.threshold.ring.bits // 8 - self.dropped_share)

    @property
    def body_error(self) -> int:
        """Largest error of one contribution in a body: the noise and the dropped bytes."""
        return KEY_PAIRS + (1 << (8 * self.dropped_body) >> 1)


def _thousandths(value: float) -> int:
    """Return 1000·log2 of a bound, rounded up."""
    return ceil(1000 * log2(value))


def make_plan(session: SessionParameters) -> Plan:
    """Return the plan with the fewest uploaded bytes.

    Raises:
        ParameterError: no ring can carry the payload safely.
    """
    return candidates(session)[0]


def candidates(session: SessionParameters) -> list[Plan]:
    """Return every feasible plan, fewest uploaded bytes first.

    Raises:
        ParameterError: there is none.
    """
    plans: list[Plan] = []
    if session.encryption == "direct":
        largest = session.capacity * ((1 << session.value_bits) - 1)
        for ring in RINGS:
            plan = _threshold_plan(session, ring, session.length, session.slot_bits, largest)
            plans += [plan] if plan else []
    else:
        for payload_ring in (DATA_RING, LARGE_RING):
            plans += _hybrid_plans(session, payload_ring)
    if not plans:
        raise ParameterError(
            "no ring can carry this payload; use fewer clients, fewer value_bits or fewer rounds"
        )
    return sorted(plans, key=lambda plan: plan.upload_bytes)


def _hybrid_plans(session: SessionParameters, payload_ring: RingParameters) -> Iterator[Plan]:
    """Yield the plans that encrypt the payload in this ring under a one-time key."""
    # The aggregate's noise and the range check's margin: a wrong key passes the check of one
    # coefficient with probability below 2^-6.
    noise_bits = (2 * KEY_PAIRS * session.capacity).bit_length() + 6
    slots = _spread((payload_ring.bits - noise_bits) // session.slot_bits, session.length)
    # What is left strengthens the range check, as far as the noise still fits an integer.
    noise_bits = min(payload_ring.bits - slots * session.slot_bits, MAX_CHECKED_NOISE_BITS)
    payload = SlotLayout(payload_ring, noise_bits, session.slot_bits, slots, session.length)
    largest = 2 * KEY_PAIRS * session.capacity
    dropped = _droppable(2.0 ** (noise_bits - 7) - KEY_PAIRS * session.capacity, session.capacity)
    for ring in (KEY_RING, DATA_RING):
        plan = _threshold_plan(session, ring, payload_ring.degree, largest.bit_length(), largest)
        if plan is not None:
            yield replace(plan, payload=payload, dropped_body=dropped)


def _threshold_plan(
    session: SessionParameters, ring: RingParameters, length: int, slot_bits: int, largest: int
) -> Plan | None:
    """Return the plan that carries `length` values in this ring under the collective key.

    The smudging depends on the number of ciphertexts, and the slots on the smudging; so the
    number is raised until it suffices.
    """
    ring.check_secure()
    noise = _noise(session, ring.degree)
    blocks, scaling = 1, RELAXATION if session.verified else 1
    while True:
        requests = session.rounds * session.max_attempts * session.max_groups
        answers = requests * blocks + session.confirmation_attempts
        budget = max(answers * session.confirmations, MIN_DECRYPTION_BUDGET)
        smudging = smudging_deviation(ring.degree, budget, noise, SMUDGING_KAPPA)
        # Dropped bytes of c0 and of the shares add at most 2σ each.
        scale = plaintext_scale(session.threshold, smudging, noise, 4 * smudging)
        slots = _spread((ring.bits - scale - EXCESS_BITS) // slot_bits, length)
        if slots < 1 or largest >= (1 << slot_bits) - 1 or not _can_be_sampled(smudging):
            return None
        layout = SlotLayout(ring, scale, slot_bits, slots, length)
        if layout.blocks <= blocks:
            break
        blocks = layout.blocks
    return Plan(
        session=session,
        threshold=layout,
        payload=None,
        budget=budget,
        noise=noise,
        smudging=smudging,
        dropped_c0=_droppable(2 * smudging / scaling, session.capacity),
        dropped_share=_droppable(2 * smudging, session.threshold),
        dropped_body=0,
    )


def _noise(session: SessionParameters, degree: int) -> float:
    """Return E."""
    holders, contributors = session.num_clients, session.capacity
    if session.verified:
        return verified_noise(degree, holders, contributors, session.max_corrupt)
    return aggregate_noise(degree, holders, contributors)


def _spread(slots: int, length: int) -> int:
    """Return fewer slots for a short vector: range checks need some coefficients to look at."""
    return min(slots, max(1, length // MIN_CHECKED_COEFFICIENTS))


def _can_be_sampled(smudging: float) -> bool:
    try:
        smudging_widths(smudging)
    except ValueError:
        return False
    return True


def _droppable(room: float, summands: int) -> int:
    """Return the most low bytes d with summands·2^(8d-1) ≤ room."""
    return max(0, int((log2(room / summands) + 1) // 8)) if room > summands else 0
