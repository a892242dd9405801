"""Arithmetic in R_q = Z_q[X]/(X^N + 1) for q = 2^(32·L) - c (docs/protocol.md, Ring).

An element is an int64 array (..., L, N): L base-2^32 limbs, least significant first, of N
coefficients. It is canonical when every limb lies in [0, 2^32) and every coefficient below q.
Products come from a negacyclic FFT in float64 on centred digits; they are exact within the
bounds of `noise.py`, which choose the digit width.

What an array holds is its type, checked by mypy and free at run time. Arithmetic of NumPy forgets
it: `Limbs(x - y)` says what comes out, and only `Ring.reduce` makes an `Element` of that.

    Element ⊂ Limbs    Small → Transform    Element → Spectrum
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.noise import typical_product_error, worst_case_product_error
from mphe.arithmetic.rings import LIMB_BITS, RingParameters
from mphe.errors import EncodingError, ParameterError

Integers = NDArray[np.int64]
"""An array of which nothing is known yet."""
Limbs = NewType("Limbs", Integers)
"""Signed limbs (L, n) that are not carried, below 2^62: sums and products, before `reduce`."""
Element = NewType("Element", Limbs)
"""Canonical limbs (L, n): each in [0, 2^32), each coefficient below q. Never written to."""
Small = NewType("Small", Integers)
"""Signed coefficients or digits (..., N), small enough for an exact product."""
Transform = NewType("Transform", NDArray[np.complex128])
"""The negacyclic FFT (..., N/2) of something small."""

LIMB_MASK = (1 << LIMB_BITS) - 1
EXACT_BELOW = 0.5


@dataclass(frozen=True)
class Spectrum:
    """The transform of an element's centred digits.

    Attributes:
        values: complex128 (digits, N/2).
        width: bits of a digit, 32 or 16.
    """

    values: Transform
    width: int


def digit_width(degree: int, small_norm: float) -> int:
    """Return the widest digit (32 or 16 bits) for which a product with a small operand is exact.

    The other operand must be uniform from our own sampler where the worst-case bound is too weak.

    Args:
        degree: N.
        small_norm: bound on the Euclidean norm of the small operand.

    Raises:
        ParameterError: no width is proven exact.
    """
    for width in (32, 16):
        largest = 2.0 ** (width - 1)
        worst = worst_case_product_error(degree, small_norm, sqrt(degree) * largest)
        typical = typical_product_error(degree, small_norm, largest / sqrt(3))
        if min(worst, typical) < EXACT_BELOW:
            return width
    raise ParameterError(
        f"a product with an operand of norm {small_norm:.3g} in degree {degree} is not exact in "
        "float64; use fewer clients"
    )


def _check_full_product(degree: int, limbs: int) -> None:
    """Raise ParameterError unless a uniform element times any other is exact in 16-bit digits."""
    largest = 2.0**15
    norm = sqrt(2 * limbs * degree) * largest
    if typical_product_error(degree, norm, largest / sqrt(3)) >= EXACT_BELOW:
        raise ParameterError(f"products in degree {degree} with {limbs} limbs are not exact")


class Ring:
    """Operations of one ring; holds nothing but its constants and the twist of the FFT."""

    def __init__(self, parameters: RingParameters) -> None:
        """Precompute the N/2 roots exp(iπj/N) that make the FFT negacyclic.

        Raises:
            ParameterError: a product of two full elements is not exact in this ring.
        """
        self.parameters = parameters
        self.degree = parameters.degree
        self.limbs = parameters.limbs
        self.modulus = parameters.modulus
        self._subtrahend = parameters.subtrahend
        self._half = self.degree // 2
        _check_full_product(self.degree, self.limbs)
        roots: NDArray[np.complex128] = np.exp(1j * np.pi * np.arange(self._half) / self.degree)
        self._twist = roots

    # -- elements ------------------------------------------------------------------------------

    def zero(self) -> Element:
        """Return the zero element, int64 (L, N)."""
        return Element(Limbs(np.zeros((self.limbs, self.degree), np.int64)))

    def from_small(self, coefficients: Small) -> Element:
        """Return the element of signed coefficients (N,), each below 2^62."""
        return self.reduce(add_small(self.zero(), coefficients))

    def reduce(self, x: Limbs) -> Element:
        """Bring signed limbs below 2^62 to canonical form, in place; return the same array."""
        carry = self._propagate(x, stop_early=False)
        while carry is not None and carry.any():
            # 2^(32·L) = c mod q, so what leaves at the top comes back at the bottom.
            x[..., 0, :] += carry * self._subtrahend
            carry = self._propagate(x, stop_early=True)
        self._subtract_modulus(x)
        return Element(x)

    def _propagate(self, x: Limbs, stop_early: bool) -> Integers | None:
        """Carry from limb to limb in place; return what leaves at the top, if it got there."""
        carry: Integers | None = None
        for limb in range(self.limbs):
            row = x[..., limb, :]
            if carry is not None:
                row += carry
            carry = row >> LIMB_BITS
            if stop_early and not carry.any():
                return None
            row &= LIMB_MASK
        return carry

    def _subtract_modulus(self, x: Limbs) -> None:
        """Subtract q where a coefficient in [0, 2^(32·L)) is not below it, in place."""
        excess = self.not_below_modulus(x)
        if excess is None:
            return
        lowest = x[..., 0, :]
        lowest[excess] -= LIMB_MASK + 1 - self._subtrahend
        for limb in range(1, self.limbs):
            x[..., limb, :][excess] = 0

    def not_below_modulus(self, x: Limbs) -> NDArray[np.bool_] | None:
        """Return where normalised limbs stand for a number ≥ q, or None for nowhere."""
        excess = x[..., -1, :] == LIMB_MASK
        if not excess.any():
            return None
        for limb in range(1, self.limbs - 1):
            excess &= x[..., limb, :] == LIMB_MASK
        excess &= x[..., 0, :] > LIMB_MASK - self._subtrahend
        return excess if excess.any() else None

    def centre(self, x: Element, width: int) -> Small:
        """Return balanced digits (digits, n) of canonical coefficients, |digit| ≤ 2^(width-1) + c.

        Args:
            x: of n coefficients.
            width: 32 or 16 bits.
        """
        digits = x.copy() if width == LIMB_BITS else _halves(x)
        half = 1 << (width - 1)
        carry: Integers = np.zeros(x.shape[-1], np.int64)
        for row in digits:
            row += carry
            carry = (row + half) >> width
            row -= carry << width
        digits[0] += carry * self._subtrahend
        return Small(digits)

    def multiply_scalar(self, x: Element, scalar: int) -> Element:
        """Return x·scalar mod q for any integer scalar."""
        digits = _halves(x).astype(np.float64)
        factor = [(scalar % self.modulus) >> (16 * i) & 0xFFFF for i in range(2 * self.limbs)]
        toeplitz = np.zeros((4 * self.limbs - 1, 2 * self.limbs))
        for column in range(2 * self.limbs):
            toeplitz[column : column + 2 * self.limbs, column] = factor
        # Every sum stays below 2·L·2^32 < 2^53, so this float64 product is exact.
        return self.reduce(self._from_halves((toeplitz @ digits).astype(np.int64)))

    # -- products ------------------------------------------------------------------------------

    def transform(self, digits: Small) -> Transform:
        """Return the negacyclic FFT, complex128 (..., N/2), of digits (..., N).

        Entry k is the polynomial at ζ^(1-4k), ζ = exp(iπ/N), where X^(N/2) = i: this folds N
        reals into N/2 complex numbers.
        """
        folded = np.empty((*digits.shape[:-1], self._half), np.complex128)
        folded.real = digits[..., : self._half]
        folded.imag = digits[..., self._half :]
        folded *= self._twist
        return Transform(np.fft.fft(folded, out=folded))

    def inverse(self, values: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Return the coefficients (..., N) of a product, not rounded; overwrites `values`."""
        folded = np.fft.ifft(values, out=values)
        folded *= self._twist.conj()
        return np.concatenate((folded.real, folded.imag), axis=-1)

    def spectrum(self, x: Element, width: int) -> Spectrum:
        """Return the transform of an element's digits, to be used again and again."""
        return Spectrum(self.transform(self.centre(x, width)), width)

    def multiply_small(self, small: Transform, element: Spectrum) -> Limbs:
        """Return small·element as signed limbs below 2^54: add noise, then `reduce`.

        Args:
            small: `transform` of a small polynomial, (N/2,), within the bound that chose
                the width of `element`.
            element: transform of the other operand.
        """
        digits = np.rint(self.inverse(element.values * small)).astype(np.int64)
        return Limbs(digits) if element.width == LIMB_BITS else self._from_halves(digits)

    def multiply(self, left: Spectrum, right: Spectrum) -> Limbs:
        """Return left·right for 16-bit spectra, as signed limbs: add noise, then `reduce`.

        One of them must be uniform from our own sampler, as a Shamir share is.
        """
        count = 2 * self.limbs
        total = np.zeros((2 * count - 1, self._half), np.complex128)
        for position, digit in enumerate(left.values):
            total[position : position + count] += digit * right.values
        return self._from_halves(np.rint(self.inverse(total)).astype(np.int64))

    def _from_halves(self, digits: Integers) -> Limbs:
        """Return signed limbs (L, N) of the number whose base-2^16 digits (K, N) are given.

        Digits stay below 2^52 and K at most 4·L - 1; what lies above 2^(32·L) is folded by c.
        """
        limbs = np.zeros((2 * self.limbs, digits.shape[-1]), np.int64)
        even, odd = digits[0::2], digits[1::2]
        limbs[: len(even)] = even
        limbs[: len(odd)] += (odd & 0xFFFF) << 16
        limbs[1 : len(odd) + 1] += odd >> 16
        low, high = limbs[: self.limbs], limbs[self.limbs :]
        low += high * self._subtrahend
        return Limbs(low)

    # -- on the wire ---------------------------------------------------------------------------

    def to_bytes(self, x: Element, dropped: int = 0) -> bytes:
        """Return the coefficients (L, n), limb after limb, without the `dropped` lowest bytes.

        What is left of a limb of which bytes are dropped goes byte after byte.

        Args:
            x: of n ≤ N coefficients.
            dropped: bytes that the noise will drown anyway; the reader puts their middle.
        """
        skipped, partial = divmod(dropped, LIMB_BITS // 8)
        words = x[skipped:].astype("<u4")
        if not partial:
            return words.tobytes()
        lowest = words[0].view(np.uint8).reshape(-1, 4)[:, partial:].T
        return bytes(lowest.tobytes() + words[1:].tobytes())

    def wire_length(self, coefficients: int, dropped: int = 0) -> int:
        """Return the number of bytes that `to_bytes` writes for so many coefficients."""
        return coefficients * (self.limbs * LIMB_BITS // 8 - dropped)

    def from_bytes(self, data: bytes | memoryview, coefficients: int, dropped: int = 0) -> Element:
        """Read what `to_bytes` wrote; canonical limbs (L, n).

        Raises:
            EncodingError: wrong length, or a residue that is not below q.
        """
        if len(data) != self.wire_length(coefficients, dropped):
            raise EncodingError(
                f"{len(data)} bytes where {self.wire_length(coefficients, dropped)} belong"
            )
        skipped, partial = divmod(dropped, LIMB_BITS // 8)
        x = Limbs(np.zeros((self.limbs, coefficients), np.int64))
        start = 0
        if partial:
            start = coefficients * (4 - partial)
            planes = np.frombuffer(data, np.uint8, start).reshape(4 - partial, -1)
            for position, plane in enumerate(planes, start=partial):
                x[skipped] |= plane.astype(np.int64) << (8 * position)
        whole = skipped + bool(partial)
        x[whole:] = np.frombuffer(data, "<u4", offset=start).reshape(-1, coefficients)
        if dropped:
            x[(8 * dropped - 1) // LIMB_BITS] += 1 << (8 * dropped - 1) % LIMB_BITS
            # The middle of what was dropped from the largest residues can lie above q.
            self._subtract_modulus(x)
        elif self.not_below_modulus(x) is not None:
            raise EncodingError("a residue is not below the modulus")
        return Element(x)


def add_small(x: Limbs, small: Small) -> Limbs:
    """Add signed coefficients (n,) to limbs (L, n), in place; return the same array."""
    x[0] += small
    return x


def leading(x: Element, count: int) -> Element:
    """Return the first so many coefficients (L, count), as a view."""
    return Element(Limbs(x[:, :count]))


def sum_elements(elements: Sequence[Limbs]) -> Limbs:
    """Return the sum, without stacking the elements."""
    total = Limbs(elements[0].copy())
    for element in elements[1:]:
        total += element
    return total


def _halves(x: Element) -> Integers:
    """Split 32-bit limbs (L, n) into 16-bit digits (2L, n)."""
    digits = np.empty((2 * x.shape[0], x.shape[1]), np.int64)
    digits[0::2] = x & 0xFFFF
    digits[1::2] = x >> 16
    return digits
