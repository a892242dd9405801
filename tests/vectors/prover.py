"""A second maker of shortness proofs, from docs/wire.md 13.1 alone, beside reader.py."""

from __future__ import annotations

from tests.vectors.reader import ERROR_PAIRS, Element, Ring, Stream, hashed


def rotate(x: list[int], exponent: int) -> list[int]:
    """Return X^exponent·x."""
    degree = len(x)
    shift = exponent % degree
    turned = [-v for v in x[degree - shift :]] + x[: degree - shift]
    return turned if exponent < degree else [-v for v in turned]


def prove(ring: Ring, a: Element, x: Element, u: list[int], e: list[int], context: bytes,
          seed: bytes) -> bytes:  # fmt: skip
    """Return a proof that x = a·u + e is well-formed."""
    stream, degree = Stream(seed), ring.degree
    repetitions = -(-128 // (degree.bit_length()))
    while True:
        words = stream.words(repetitions * degree, 4)
        flat = [(word & (1 << 20) - 1) - (1 << 19) for word in words]
        masks = [flat[r * degree : (r + 1) * degree] for r in range(repetitions)]
        images = [ring.multiply(a, mask) for mask in masks]
        high = [ring.write(image, 3) for image in images]
        challenge = hashed("shortness proof", context, ring.write(x), *high)
        turns = [word % (2 * degree) for word in Stream(challenge).words(repetitions)]
        answers = [[y + t for y, t in zip(mask, rotate(u, turn), strict=True)]
                   for mask, turn in zip(masks, turns, strict=True)]  # fmt: skip
        rest = [(v & (1 << 24) - 1) - t for image, turn in zip(images, turns, strict=True)
                for v, t in zip(image, rotate(e, turn), strict=True)]  # fmt: skip
        z = [value for answer in answers for value in answer]
        short_z = min(z) >= -(1 << 19) + 1 and max(z) < (1 << 19) - 1
        if short_z and min(rest) >= ERROR_PAIRS and max(rest) < (1 << 24) - ERROR_PAIRS:
            pairs = zip(z[::2], z[1::2], strict=True)
            return challenge + b"".join(
                (low + (1 << 19) | (top + (1 << 19)) << 20).to_bytes(5, "little")
                for low, top in pairs
            )
