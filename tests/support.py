"""Helpers for the tests of mphe: seeded randomness, big-integer references, dealt sessions.

References never call the code under test: ring elements become Python integers limb by limb, and
products come from FLINT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import erfc, sqrt

import flint
import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.ring import Element, Integers, Limbs, Ring, Small, Spectrum
from mphe.arithmetic.rings import RingParameters
from mphe.arithmetic.sampling import RandomSource
from mphe.arithmetic.system import System
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.scheme import sharing
from mphe.scheme.decryption import scaled_share
from mphe.scheme.rlwe import CollectiveKey, KeyShare, aggregate_shares, common_reference, gen_share
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from tests import kem

TINY = RingParameters("tiny", 16, 2, 59)
"""q = 2^64 - 59 is prime; small enough for schoolbook products. Insecure, for tests only."""


# -- randomness --------------------------------------------------------------------------------


def seed_of(label: int | str) -> bytes:
    """Return the SHA-256 of a label."""
    return hashlib.sha256(str(label).encode()).digest()


class SeededSource(RandomSource):
    """A source that everybody can predict, and that counts what it has given."""

    def __init__(self, label: int | str) -> None:
        super().__init__(seed_of(label))
        self.drawn = 0

    def bytes(self, count: int) -> bytes:
        self.drawn += count
        return super().bytes(count)


def seeded(label: int | str) -> SeededSource:
    """Return the stream of a label."""
    return SeededSource(label)


class ScriptedSource(SeededSource):
    """Returns given bytes first, then those of a seeded stream."""

    def __init__(self, script: bytes, label: int | str = "after the script") -> None:
        super().__init__(label)
        self._script = script

    def bytes(self, count: int) -> bytes:
        head, self._script = self._script[:count], self._script[count:]
        return head + super().bytes(count - len(head))


class SeededSystem(System):
    """A machine on which everything can be predicted."""

    def __init__(self, label: int | str) -> None:
        self.source = SeededSource(label)

    def urandom(self, count: int) -> bytes:
        return self.source.bytes(count)

    def process(self) -> int:
        return 1

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return kem.encapsulate(public, self.urandom(32))


def chi_square_deviation(counts: Iterable[int], expected: Iterable[float]) -> float:
    """Return how many standard deviations a chi-square statistic lies above its mean.

    Wilson and Hilferty 1931: (χ²/k)^(1/3) is nearly Gaussian.
    """
    pairs = list(zip(counts, expected, strict=True))
    freedom = len(pairs) - 1
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs)
    spread = 2 / (9 * freedom)
    cube_root: float = (statistic / freedom) ** (1 / 3)
    return (cube_root - (1 - spread)) / sqrt(spread)


def uniform_deviation(values: NDArray[np.int64], kinds: int) -> float:
    """Return `chi_square_deviation` of values in [0, kinds) against the uniform distribution."""
    counts = np.bincount(values.reshape(-1), minlength=kinds)
    assert counts.size == kinds
    return chi_square_deviation(counts.tolist(), [values.size / kinds] * kinds)


def gaussian_cdf(x: float) -> float:
    """Return P(standard Gaussian ≤ x)."""
    return erfc(-x / sqrt(2)) / 2


# -- big-integer references --------------------------------------------------------------------


def limbs_to_integers(x: Integers) -> list[int]:
    """Return Σ limb·2^(32·i) for each coefficient of signed limbs (L, n), not reduced."""
    total = x[0].astype(object)
    for index in range(1, x.shape[0]):
        total = total + (x[index].astype(object) << (32 * index))
    return [int(value) for value in total]


def element_to_integers(ring: Ring, x: Integers) -> list[int]:
    """Return each coefficient of limbs (L, n), canonical or not, modulo q."""
    return [value % ring.modulus for value in limbs_to_integers(x)]


def integers_to_element(ring: Ring, values: Sequence[int]) -> Element:
    """Return the canonical limbs (L, n) of integers modulo q."""
    data = b"".join((value % ring.modulus).to_bytes(4 * ring.limbs, "little") for value in values)
    rows = np.frombuffer(data, "<u4").reshape(len(values), ring.limbs)
    return Element(Limbs(np.ascontiguousarray(rows.T.astype(np.int64))))


def centred(values: Iterable[int], modulus: int) -> list[int]:
    """Return the representatives in (-q/2, q/2]."""
    return [(value + (modulus - 1) // 2) % modulus - (modulus - 1) // 2 for value in values]


def product(left: Sequence[int], right: Sequence[int], modulus: int) -> list[int]:
    """Return the product of two polynomials modulo X^N + 1 and q, by FLINT over the integers."""
    degree = len(left)
    assert len(right) == degree
    full = flint.fmpz_poly(list(left)) * flint.fmpz_poly(list(right))
    coefficients = [int(value) for value in full.coeffs()]
    coefficients += [0] * (2 * degree - len(coefficients))
    return [(coefficients[i] - coefficients[degree + i]) % modulus for i in range(degree)]


def integers(values: Integers) -> list[int]:
    """Return a NumPy vector as Python integers."""
    return [int(value) for value in values]


class RecordingRing(Ring):
    """Notes the largest distance from an integer that ever left the inverse transform."""

    def __init__(self, parameters: RingParameters) -> None:
        super().__init__(parameters)
        self.distance = 0.0

    def inverse(self, values: NDArray[np.complex128]) -> NDArray[np.float64]:
        result = super().inverse(values)
        distance = float(np.abs(result - np.rint(result)).max())
        self.distance = max(self.distance, distance)
        return result


# -- sessions without the set-up protocol ------------------------------------------------------


@dataclass(frozen=True)
class DealtSession:
    """All keys of a session, dealt by this test instead of the set-up protocol."""

    plan: Plan
    ring: Ring
    crs_seed: bytes
    transcript: bytes
    key_shares: Mapping[int, KeyShare]
    key: CollectiveKey
    shares: Mapping[int, Element]
    mask_keys: Mapping[int, Mapping[int, bytes]] = field(repr=False)

    @property
    def secret(self) -> Small:
        """s = Σ s_i, which nobody knows outside of tests."""
        total: Small = np.sum([share.secret for share in self.key_shares.values()], axis=0)
        return total

    def scaled(self, index: int, active: Sequence[int], plan: Plan | None = None) -> Spectrum:
        """Return what `decryption.gen_share` takes of the share of one member of D."""
        scheme = sharing.sharing_of(self.plan.session, self.ring)
        additive = scheme.additive_share(self.shares[index], index, active)
        return scaled_share(plan or self.plan, self.ring, additive)

    def signed_mask_keys(self, index: int, active: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        """Return what `decryption.gen_share` takes for one member of D."""
        return {
            peer: (1 if peer > index else -1, self.mask_keys[index][peer])
            for peer in active
            if peer != index
        }


def make_parameters(
    num_clients: int = 3,
    threshold: int = 2,
    length: int = 100,
    rounds: int = 2,
    *,
    robust: bool = True,
    encryption: str = "hybrid",
    value_bits: int = 16,
    capacity: int | None = None,
) -> SessionParameters:
    """Return the parameters of a small session."""
    return SessionParameters(
        num_clients=num_clients,
        threshold=threshold,
        length=length,
        rounds=rounds,
        robust=robust,
        encryption=encryption,
        value_bits=value_bits,
        capacity=capacity,
    )


def make_session(
    parameters: SessionParameters, label: int | str = "session", plan: Plan | None = None
) -> DealtSession:
    """Deal key shares, Shamir shares and zero-share keys to all clients."""
    plan = plan or make_plan(parameters)
    ring, source = Ring(plan.threshold.ring), seeded(label)
    crs_seed, transcript = source.bytes(32), source.bytes(32)
    reference = common_reference(ring, crs_seed)
    clients = range(1, parameters.num_clients + 1)
    decryptors = range(1, parameters.decryptors + 1)
    key_shares = {index: gen_share(ring, reference, source) for index in clients}
    public = aggregate_shares(ring, [share.public for share in key_shares.values()])
    dealt = []
    for share in key_shares.values():
        secret = ring.from_small(share.secret)
        dealt.append(sharing.gen_shares(ring, secret, parameters.threshold, decryptors, source))
    shares = {j: sharing.aggregate_shares(ring, [part[j] for part in dealt]) for j in decryptors}
    pairwise = {index: PairwiseKeys.generate(index, source) for index in clients}
    mask_keys = {
        i: {
            j: own.zero_share_key(other.public, transcript, Encapsulated(j, bytes(32), bytes(32)))
            for j, other in pairwise.items()
            if i != j
        }
        for i, own in pairwise.items()
    }
    key = CollectiveKey(ring, reference, public)
    return DealtSession(plan, ring, crs_seed, transcript, key_shares, key, shares, mask_keys)
