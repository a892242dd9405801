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
from mphe.arithmetic.ring import (
    Element,
    Limbs,
    Ring,
    Small,
    Spectrum,
    Transform,
    add_small,
    digit_width,
    sum_elements,
)
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

    @classmethod
    def draw(cls, ring: Ring, source: RandomSource) -> Opening:
        """Return a fresh u and e."""
        return cls(ternary(source, ring.degree), error(source, ring.degree))


@dataclass(frozen=True)
class KeyShare:
    """A client's part of the collective key.

    Attributes:
        opening: s_i and e_i. s_i never leaves the client but as Shamir shares.
        public: b_i (L, N).
    """

    opening: Opening
    public: Element

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
    """A pair (L, N) with c0 - s·c1 = Δ·m + noise."""

    c0: Element
    c1: Element


@dataclass(frozen=True)
class Prepared:
    """The half of a ciphertext that does not depend on the plaintext; serves once.

    Attributes:
        opening: u and e1.
        transform: of u.
        c1: a·u + e1 (L, N).
    """

    opening: Opening
    transform: Transform
    c1: Element


def ternary_width(ring: Ring) -> int:
    """Return the digit width for products with a ternary polynomial."""
    return digit_width(
        ring.degree, min(norm_bound(TERNARY_VARIANCE, ring.degree), sqrt(ring.degree))
    )


def common_reference(ring: Ring, crs_seed: bytes) -> Element:
    """Return a, the same for everybody."""
    return expand(ring, crs_seed, "collective key")


def gen_share(ring: Ring, reference: Element, source: RandomSource) -> KeyShare:
    """Return a fresh s_i and b_i = a·s_i + e_i."""
    opening = Opening.draw(ring, source)
    a_hat, s_hat = ring.spectrum(reference, ternary_width(ring)), ring.transform(opening.secret)
    public = add_small(ring.multiply_small(s_hat, a_hat), opening.error)
    return KeyShare(opening, ring.reduce(public))


def aggregate_shares(ring: Ring, shares: Sequence[Element]) -> Element:
    """Return b = Σ b_i."""
    return ring.reduce(sum_elements(shares))


class CollectiveKey:
    """The public key with its transforms.

    Attributes:
        reference: a (L, N).
        key: b (L, N).
    """

    def __init__(self, ring: Ring, reference: Element, key: Element) -> None:
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
            plaintext: Δ·m (L, n), n ≤ N; missing coefficients are zero.
            source: where u, e0 and e1 come from.
        """
        prepared = self.prepare(source)
        return Ciphertext(self.complete(prepared, plaintext, source), prepared.c1)

    def prepare(self, source: RandomSource) -> Prepared:
        """Return c1 = a·u + e1 with fresh u and e1."""
        ring, (_, a_hat) = self.ring, self._spectra
        opening = Opening.draw(ring, source)
        u_hat = ring.transform(opening.secret)
        c1 = add_small(ring.multiply_small(u_hat, a_hat), opening.error)
        return Prepared(opening, u_hat, ring.reduce(c1))

    def complete(self, prepared: Prepared, plaintext: Limbs, source: RandomSource) -> Element:
        """Return c0 = b·u + e0 + plaintext with a fresh e0; once for each `prepared`."""
        ring, (b_hat, _), u_hat = self.ring, self._spectra, prepared.transform
        c0 = add_small(ring.multiply_small(u_hat, b_hat), error(source, ring.degree))
        c0[:, : plaintext.shape[1]] += plaintext
        return ring.reduce(c0)
