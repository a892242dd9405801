"""What mypy must refuse in arithmetic on ring elements; nothing here is ever called.

mypy is strict here, so an ignored error that is none any more fails `make check`.
"""

from __future__ import annotations

from mphe.arithmetic.ring import Element, Limbs, Ring, Small, Spectrum, Transform, sum_elements
from mphe.plan.plan import SlotLayout
from mphe.scheme import packing


def sums_that_were_not_reduced(ring: Ring, x: Element, y: Element, layout: SlotLayout) -> None:
    ring.to_bytes(sum_elements([x, y]))  # type: ignore[arg-type]
    ring.spectrum(Limbs(x - y), 16)  # type: ignore[arg-type]
    ring.multiply_scalar(Limbs(x + y), 3)  # type: ignore[arg-type]
    packing.unpack(layout, Limbs(x + y))  # type: ignore[arg-type]


def products_that_were_not_reduced(ring: Ring, a: Spectrum, s: Transform) -> None:
    ring.to_bytes(ring.multiply_small(s, a))  # type: ignore[arg-type]
    ring.centre(ring.multiply(a, a), 16)  # type: ignore[arg-type]


def arithmetic_of_numpy_forgets_what_it_was(ring: Ring, x: Element) -> None:
    ring.to_bytes(x + x)  # type: ignore[arg-type]
    ring.reduce(x + x)  # type: ignore[arg-type]


def kinds_that_were_mixed_up(ring: Ring, x: Element, small: Small, a: Spectrum) -> None:
    ring.transform(x)  # type: ignore[arg-type]
    ring.reduce(small)  # type: ignore[arg-type]
    ring.from_small(x)  # type: ignore[arg-type]
    ring.spectrum(small, 16)  # type: ignore[arg-type]
    ring.multiply_small(small, a)  # type: ignore[arg-type]
    ring.multiply_small(a, a)  # type: ignore[arg-type]
