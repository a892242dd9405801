"""The collective RLWE key: shares, their sum, encryption under it (Mouchet et al. 2020/304).

b_i = a·s_i + e_i,   b = Σ b_i = a·s + e   for   s = Σ s_i, which nobody knows
(c0, c1) = (b·u + e0 + Δ·m, a·u + e1)
c0 - s·c1 = Δ·m + e·u + e0 - s·e1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

from mphe.arithmetic.noise import TERNARY_VARIANCE, norm_bound
from mphe.arithmetic.ring import Complexes, Limbs, Ring, Small, Spectrum, digit_width, sum_elements
from mphe.arithmetic.sampling import RandomSource, error, expand, ternary


@dataclass(frozen=True)
class Opening:
    """What makes up an element a·u + e; secret.

    Attributes:
        secret: u, ternary int64 (N,).
        error: e, int64 (N,), |e| ≤ 21.
    """

    secret: Small
    error: Small


@dataclass(frozen=True)
class KeyShare:
    """A client's part of the collective key.

    Attributes:
        opening: s_i and e_i. s_i never leaves the client but as Shamir shares.
        public: b_i, canonical (L, N).
    """

    opening: Opening
    public: Limbs

    @property
    def secret(self) -> Small:
        """s_i, ternary int64 (N,)."""
        return self.opening.secret

    @property
    def error(self) -> Small:
        """e_i, int64 (N,), |e| ≤ 21."""
        return self.opening.error


@dataclass(frozen=True)
class Ciphertext:
    """A pair with c0 - s·c1 = Δ·m + noise; both canonical (L, N)."""

    c0: Limbs
    c1: Limbs


@dataclass(frozen=True)
class Prepared:
    """The half of a ciphertext that does not depend on the plaintext; serves once.

    Attributes:
        opening: u and e1.
        transform: of u.
        c1: a·u + e1, canonical (L, N).
    """

    opening: Opening
    transform: Complexes
    c1: Limbs


def ternary_width(ring: Ring) -> int:
    """Return the digit width for products with a ternary polynomial."""
    return digit_width(
        ring.degree, min(norm_bound(TERNARY_VARIANCE, ring.degree), sqrt(ring.degree))
    )


def common_reference(ring: Ring, crs_seed: bytes) -> Limbs:
    """Return a, the same for everybody."""
    return expand(ring, crs_seed, "collective key")


def gen_share(ring: Ring, reference: Limbs, source: RandomSource) -> KeyShare:
    """Return a fresh s_i and b_i = a·s_i + e_i."""
    opening = Opening(ternary(source, ring.degree), error(source, ring.degree))
    spectrum = ring.spectrum(reference, ternary_width(ring))
    public = ring.multiply_small(ring.transform(opening.secret), spectrum)
    public[0] += opening.error
    return KeyShare(opening, ring.reduce(public))


def aggregate_shares(ring: Ring, shares: Sequence[Limbs]) -> Limbs:
    """Return b = Σ b_i."""
    return ring.reduce(sum_elements(shares))


class CollectiveKey:
    """The public key (a, b) with its transforms."""

    def __init__(self, ring: Ring, reference: Limbs, key: Limbs) -> None:
        """Keep a and b, both canonical (L, N)."""
        self.ring = ring
        self.reference = reference
        self.key = key

    @cached_property
    def _spectra(self) -> tuple[Spectrum, Spectrum]:
        width = ternary_width(self.ring)
        return self.ring.spectrum(self.key, width), self.ring.spectrum(self.reference, width)

    def encrypt(self, plaintext: Limbs, source: RandomSource) -> Ciphertext:
        """Return (b·u + e0 + plaintext, a·u + e1) with fresh u, e0 and e1.

        Args:
            plaintext: Δ·m as signed limbs (L, n), n ≤ N; missing coefficients are zero.
            source: where u, e0 and e1 come from.
        """
        prepared = self.prepare(source)
        return Ciphertext(self.complete(prepared, plaintext, source), prepared.c1)

    def prepare(self, source: RandomSource) -> Prepared:
        """Return c1 = a·u + e1 with fresh u and e1."""
        ring = self.ring
        opening = Opening(ternary(source, ring.degree), error(source, ring.degree))
        transform = ring.transform(opening.secret)
        c1 = ring.multiply_small(transform, self._spectra[1])
        c1[0] += opening.error
        return Prepared(opening, transform, ring.reduce(c1))

    def complete(self, prepared: Prepared, plaintext: Limbs, source: RandomSource) -> Limbs:
        """Return c0 = b·u + e0 + plaintext with a fresh e0; once for each `prepared`."""
        ring = self.ring
        c0 = ring.multiply_small(prepared.transform, self._spectra[0])
        c0[0] += error(source, ring.degree)
        c0[:, : plaintext.shape[1]] += plaintext
        return ring.reduce(c0)
