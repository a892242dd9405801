"""The payload cipher of hybrid mode: one key, one round (docs/protocol.md, A round).

    body_m = a_m·k + e_m + 2^ν·payload_m,   Σ body_m - a_m·Σk = Σe_m + 2^ν·Σpayload_m

The polynomials a_m are the same every round; the key never is (Bell-Clark et al. 2024/936).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from mphe.arithmetic.noise import KEY_PAIRS, KEY_VARIANCE, norm_bound
from mphe.arithmetic.ring import (
    Element,
    Integers,
    Limbs,
    Ring,
    Small,
    Spectrum,
    Transform,
    add_small,
    digit_width,
)
from mphe.arithmetic.sampling import RandomSource, expand, one_time
from mphe.errors import EncodingError, ParameterError
from mphe.plan.plan import Plan, SlotLayout
from mphe.scheme import packing

CACHED_BYTES = 1 << 26
"""Enough for vectors of some million values; the memory does not grow beyond it."""


class OneTimeCipher:
    """Encrypts under one-time keys and takes a sum of keys off a sum of bodies."""

    def __init__(self, plan: Plan, crs_seed: bytes, cached_bytes: int = CACHED_BYTES) -> None:
        """Derive a_m lazily; as many transforms as fit in `cached_bytes` are kept."""
        if plan.payload is None:
            raise ParameterError("direct mode has no one-time keys")
        self.plan = plan
        self.layout: SlotLayout = plan.payload
        self.ring = Ring(self.layout.ring)
        self._crs_seed = crs_seed
        degree = self.ring.degree
        self._own_width = digit_width(degree, norm_bound(KEY_VARIANCE, degree))
        aggregate = norm_bound(plan.session.capacity * KEY_VARIANCE, degree)
        self._sum_width = digit_width(degree, aggregate)
        self._cached_bytes = cached_bytes
        self._references: dict[tuple[int, int], Spectrum] = {}

    def _reference(self, block: int, width: int) -> Spectrum:
        """Return the transform of a_m."""
        kept = self._references.get((block, width))
        if kept is not None:
            return kept
        reference = expand(self.ring, self._crs_seed, "payload", block)
        spectrum = self.ring.spectrum(reference, width)
        if (block + 1) * spectrum.values.nbytes <= self._cached_bytes:
            self._references[block, width] = spectrum
        return spectrum

    def gen_key(self, source: RandomSource) -> Small:
        """Return a fresh key k, int64 (N,), |k| ≤ 41."""
        return one_time(source, self.ring.degree)

    def prepare(self, key: Small) -> Transform:
        """Return the transform of a key or of a sum of keys, once for all blocks."""
        return self.ring.transform(key)

    def encrypt_block(
        self, block: int, prepared: Transform, slots: Integers, source: RandomSource
    ) -> Element:
        """Return body_m (L, n) for the slots (slots, n) of one block."""
        count = slots.shape[1]
        masked = self.ring.multiply_small(prepared, self._reference(block, self._own_width))
        body = Limbs(np.ascontiguousarray(masked[:, :count]))
        body += packing.pack(self.layout, slots)
        return self.ring.reduce(add_small(body, one_time(source, count)))

    def recover_block(
        self, block: int, prepared: Transform, body_sum: Limbs
    ) -> tuple[Integers, Integers]:
        """Return the summed slots (slots, n) and the summed error (n,) of one block.

        Raises:
            EncodingError: bits above the last slot are set: the key does not match the body.

        Args:
            block: m.
            prepared: transform of Σk.
            body_sum: Σ body_m (L, n).
        """
        mask = self.ring.multiply_small(prepared, self._reference(block, self._sum_width))
        difference = Limbs(body_sum - mask[:, : body_sum.shape[1]])
        packing.add_half(self.layout, difference)
        opened = self.ring.reduce(difference)
        if packing.has_excess(self.layout, opened):
            raise EncodingError("the sum is out of range")
        return packing.unpack(self.layout, opened)

    def errors_plausible(self, errors: Integers, contributors: int) -> bool:
        """Return whether |Σe| stays within what so many honest contributions can add."""
        return bool(np.abs(errors).max(initial=0) <= self.plan.body_error * contributors)


def keys_plausible(key_sum: Small, contributors: int) -> bool:
    """Return whether |Σk| ≤ 41·|U| in every coefficient and its norm is one of honest keys."""
    norm = sqrt(float(np.dot(key_sum, key_sum)))
    bound = norm_bound(contributors * KEY_VARIANCE, key_sum.size)
    return bool(np.abs(key_sum).max() <= KEY_PAIRS * contributors and norm <= bound)
