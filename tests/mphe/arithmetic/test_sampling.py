"""mphe.arithmetic.sampling: the keystream, the distributions and the exactness of the smudging."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import combinations, pairwise
from math import comb, sqrt

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mphe.arithmetic.noise import (
    ERROR_PAIRS,
    KEY_PAIRS,
    MAX_PART_BITS,
    PART_BITS,
    SMOOTHING,
    smudging_widths,
)
from mphe.arithmetic.ring import Limbs, Ring
from mphe.arithmetic.rings import KEY_RING, RINGS, RingParameters
from mphe.arithmetic.sampling import (
    RandomSource,
    add_smudging,
    centred_binomial,
    derive_seed,
    error,
    expand,
    one_time,
    ternary,
    uniform,
)
from mphe.errors import ParameterError
from tests.support import (
    TINY,
    ScriptedSource,
    chi_square_deviation,
    element_to_integers,
    gaussian_cdf,
    limbs_to_integers,
    seeded,
    uniform_deviation,
)

LIMIT = 5.0
"""Deviations that a statistic may be off; the seeds are fixed, so nothing fails by chance."""


# -- the stream -------------------------------------------------------------------------------


def keystream(seed: bytes, count: int) -> bytes:
    """Return AES-256 of the counters 0, 1, 2, … block by block."""
    encryptor = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    blocks = (encryptor.update(i.to_bytes(16, "big")) for i in range(-(-count // 16)))
    return b"".join(blocks)[:count]


def test_the_stream_is_aes_256_of_a_counter() -> None:
    seed = bytes(range(32))
    assert RandomSource(seed).bytes(1000) == keystream(seed, 1000)


def test_aes_256_is_that_of_nist() -> None:
    # FIPS 197, appendix C.3: an answer that no library of ours computed.
    encryptor = Cipher(algorithms.AES(bytes(range(32))), modes.ECB()).encryptor()
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert encryptor.update(plain).hex() == "8ea2b7ca516745bfeafc49904b496089"


def test_the_stream_does_not_depend_on_how_it_is_read() -> None:
    seed, source = bytes(range(32)), RandomSource(bytes(range(32)))
    pieces = [source.bytes(count) for count in (1, 0, 15, 17, 100, 3)]
    assert b"".join(pieces) == keystream(seed, 136)


def test_words_are_little_endian() -> None:
    seed = bytes(32)
    words = [int.from_bytes(keystream(seed, 40)[i : i + 8], "little") for i in range(0, 40, 8)]
    assert RandomSource(seed).words(5).tolist() == words


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ParameterError, match="32 bytes"):
        RandomSource(bytes(length))


def test_the_system_source_never_repeats() -> None:
    drawn = {RandomSource.from_system().bytes(32) for _ in range(100)}
    assert len(drawn) == 100


def test_derived_seeds_are_sha_256_of_length_prefixed_parts() -> None:
    expected = hashlib.sha256(b"\0\0\0\0\0\0\0\4name" + b"\0\0\0\0\0\0\0\2ab" + bytes(8)).digest()
    assert derive_seed("name", b"ab", b"") == expected


def test_parts_cannot_be_shifted_into_each_other() -> None:
    seeds = [
        derive_seed("a", b"bc"),
        derive_seed("ab", b"c"),
        derive_seed("a", b"b", b"c"),
        derive_seed("a", b"bc", b""),
        derive_seed("abc"),
    ]
    assert len(set(seeds)) == len(seeds)


# -- small distributions ----------------------------------------------------------------------


def test_ternary_is_uniform_on_three_values() -> None:
    values = ternary(seeded("ternary"), 300_000)
    assert set(values.tolist()) == {-1, 0, 1}
    assert abs(uniform_deviation(values + 1, 3)) < LIMIT


def test_ternary_has_no_modulo_bias() -> None:
    # Byte 255 would make a third kind of zero (255 % 3 = 0): it is skipped.
    source = ScriptedSource(bytes([255, 0, 255, 1, 2, 254]) + bytes(200))
    assert ternary(source, 5)[:4].tolist() == [-1, 0, 1, 1]


def test_ternary_asks_for_more_when_too_much_is_rejected() -> None:
    values = ternary(ScriptedSource(b"\xff" * 500), 100)
    assert values.shape == (100,)
    assert set(values.tolist()) == {-1, 0, 1}


def binomial_law(pairs: int) -> dict[int, float]:
    """Return the distribution of Σ (bit - bit) over so many pairs."""
    return {k: comb(2 * pairs, pairs + k) / 4**pairs for k in range(-pairs, pairs + 1)}


@pytest.mark.parametrize("pairs", [1, 2, ERROR_PAIRS, KEY_PAIRS, 63])
def test_centred_binomial_has_the_law_of_its_name(pairs: int) -> None:
    count = 200_000
    values = centred_binomial(seeded(f"binomial {pairs}"), count, pairs)
    expected = {k: count * p for k, p in binomial_law(pairs).items()}
    core = [k for k, mean in expected.items() if mean >= 10]
    counts = [int((values == k).sum()) for k in core]
    means = [expected[k] for k in core]
    if len(core) < len(expected):
        counts.append(count - sum(counts))
        means.append(count - sum(means))
    assert np.abs(values).max() <= pairs
    assert chi_square_deviation(counts, means) < LIMIT
    assert values.mean() == pytest.approx(0, abs=LIMIT * sqrt(pairs / 2 / count))
    assert values.var() == pytest.approx(pairs / 2, rel=0.02)


def test_errors_and_keys_have_the_deviations_of_the_design() -> None:
    assert error(seeded("e"), 200_000).std() == pytest.approx(3.24, rel=0.01)
    assert one_time(seeded("k"), 200_000).std() == pytest.approx(4.53, rel=0.01)


def test_one_time_keys_reach_41_and_no_more() -> None:
    words = np.array([2**64 - 1, 0, 0, 2**64 - 1], "<u8").tobytes()
    assert one_time(ScriptedSource(words), 2).tolist() == [KEY_PAIRS, -KEY_PAIRS]


def smudging_column(source: RandomSource, count: int) -> NDArray[np.int64]:
    limbs = np.zeros((2, count), np.int64)
    add_smudging(source, Limbs(limbs), 2.0**62)
    column: NDArray[np.int64] = limbs[1]
    return column


@pytest.mark.parametrize(
    "sampler", [ternary, error, one_time, smudging_column], ids=lambda sampler: sampler.__name__
)
def test_coefficients_are_independent_of_each_other(
    sampler: Callable[[RandomSource, int], NDArray[np.int64]],
) -> None:
    count = 100_000
    source = seeded("independent")
    values, later = sampler(source, count), sampler(source, count)
    others = [np.roll(values, shift) for shift in (1, 2, 8, count // 2)]
    for other in (values[::-1], later, later[::-1], *others):
        assert abs(np.corrcoef(values, other)[0, 1]) < LIMIT / sqrt(count / 2)


# -- uniform elements -------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", RINGS, ids=lambda ring: ring.name)
def test_uniform_elements_are_canonical_and_uniform(parameters: RingParameters) -> None:
    ring = Ring(parameters)
    element = uniform(seeded("uniform"), ring)
    assert element.shape == (ring.limbs, ring.degree)
    assert max(element_to_integers(ring, element)) < ring.modulus
    for limb in element:
        assert 0 <= limb.min() <= limb.max() < 1 << 32
        for shift in (0, 8, 16, 24):
            assert abs(uniform_deviation(limb >> shift & 0xFF, 256)) < LIMIT


def test_residues_from_the_modulus_upwards_are_drawn_again() -> None:
    ring = Ring(TINY)
    # Coefficients 0..3 start as q - 1, q, q + 1 and 2^64 - 1; all others as 5.
    low, high = np.full(16, 5, "<u4"), np.zeros(16, "<u4")
    low[:4] = [2**32 - 60, 2**32 - 59, 2**32 - 58, 2**32 - 1]
    high[:4] = 2**32 - 1
    # The second draw is refused once more for the first of the three.
    again = np.array([2**32 - 1, 7, 8, 2**32 - 1, 9, 10], "<u4")
    third = np.array([11, 12], "<u4")
    script = b"".join(part.tobytes() for part in (low, high, again, third))
    values = element_to_integers(ring, uniform(ScriptedSource(script), ring))
    assert values[:4] == [ring.modulus - 1, 11 + (12 << 32), 7 + (9 << 32), 8 + (10 << 32)]
    assert values[4:] == [5] * 12


def test_common_reference_polynomials_are_reproducible() -> None:
    ring, seed = Ring(KEY_RING), bytes(range(32))
    assert np.array_equal(expand(ring, seed, "name", 3), expand(Ring(KEY_RING), seed, "name", 3))


def test_common_reference_polynomials_are_separated_by_seed_name_index_and_ring() -> None:
    ring, seed = Ring(KEY_RING), bytes(32)
    other_ring = Ring(RingParameters("other", 4096, 3, 17))
    elements = [
        expand(ring, seed, "name"),
        expand(ring, b"\1" * 32, "name"),
        expand(ring, seed, "nam"),
        expand(ring, seed, "name", 1),
        expand(ring, seed, "name", 256),
        expand(other_ring, seed, "name"),
    ]
    assert len({element.tobytes() for element in elements}) == len(elements)


# -- smudging ---------------------------------------------------------------------------------

DEVIATION = 2.0**62.3


def smudge(count: int, deviation: float, label: str) -> NDArray[np.int64]:
    limbs = np.zeros((4, count), np.int64)
    add_smudging(seeded(label), Limbs(limbs), deviation)
    return limbs


@pytest.mark.parametrize("log_deviation", [37.0, 50.0, 62.3, 70.0, 79.9])
def test_smudging_has_the_deviation_that_was_asked_for(log_deviation: float) -> None:
    deviation, count = 2.0**log_deviation, 100_000
    values = [x / deviation for x in limbs_to_integers(smudge(count, deviation, "smudge"))]
    assert sqrt(sum(x * x for x in values) / count) == pytest.approx(1, abs=5 / sqrt(2 * count))
    assert abs(sum(values) / count) < 5 / sqrt(count)


def test_smudging_is_gaussian() -> None:
    count = 100_000
    values = np.array(limbs_to_integers(smudge(count, DEVIATION, "shape")), float) / DEVIATION
    edges = [-3.0 + 0.25 * step for step in range(25)]
    cumulated = [0.0, *(gaussian_cdf(edge) for edge in edges), 1.0]
    means = [count * (b - a) for a, b in pairwise(cumulated)]
    counts = np.bincount(np.searchsorted(edges, values), minlength=26)
    assert abs(chi_square_deviation(counts.tolist(), means)) < LIMIT


@pytest.mark.parametrize("log_deviation", [37.0, 62.3, 79.9])
def test_the_low_32_bits_of_the_smudging_are_uniform(log_deviation: float) -> None:
    # A double scaled to a width above 2^53 would leave zeros here, and show the noise beneath.
    low = smudge(200_000, 2.0**log_deviation, "low bits")[0] & 0xFFFFFFFF
    for shift in (0, 8, 16, 24):
        assert abs(uniform_deviation(low >> shift & 0xFF, 256)) < LIMIT


def test_smudging_adds_to_what_is_there_and_spares_the_upper_limbs() -> None:
    limbs = np.arange(40, dtype=np.int64).reshape(4, 10)
    add_smudging(seeded("in place"), Limbs(limbs), DEVIATION)
    fresh = smudge(10, DEVIATION, "in place")
    assert np.array_equal(limbs - fresh, np.arange(40).reshape(4, 10))
    assert not fresh[3].any()


@pytest.mark.parametrize("log_deviation", [37.0, 50.0, 62.3, 79.9])
def test_the_low_bits_of_the_smudging_tell_nothing_of_the_high_ones(log_deviation: float) -> None:
    count = 100_000
    values = limbs_to_integers(smudge(count, 2.0**log_deviation, "low and high"))
    low = np.array([value & 0xFFFF for value in values], float)
    for high in ([value >> 16 for value in values], [abs(value) for value in values]):
        assert abs(np.corrcoef(low, np.array(high, float))[0, 1]) < LIMIT / sqrt(count)


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_the_parts_of_the_smudging_are_independent(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parts so narrow that they do not overlap can be read off the sum.
    width, count = 1000.0, 100_000
    monkeypatch.setattr(
        "mphe.arithmetic.sampling.smudging_widths", lambda deviation: (width,) * parts
    )
    rest, found = limbs_to_integers(smudge(count, DEVIATION, "parts")), []
    for _ in range(parts):
        digits = [(value + 0x8000 & 0xFFFF) - 0x8000 for value in rest]
        rest = [(value - digit) >> 16 for value, digit in zip(rest, digits, strict=True)]
        found.append(np.array(digits, float))
    assert not any(rest)
    for part in found:
        assert part.std() == pytest.approx(width, rel=LIMIT / sqrt(2 * count))
    for one, two in combinations(found, 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < LIMIT / sqrt(count)
        assert abs(np.corrcoef(abs(one), abs(two))[0, 1]) < LIMIT / sqrt(count)


@pytest.mark.parametrize(
    "log_deviation", [36.5, 44.0, 50.0, 57.1, 62.3, 70.0, 79.9, 88.0, 104.5, 119.9]
)
def test_the_widths_add_up_and_all_but_the_last_are_smooth(log_deviation: float) -> None:
    deviation = 2.0**log_deviation
    widths = smudging_widths(deviation)
    scaled = [width * 2.0 ** (PART_BITS * i) for i, width in enumerate(widths)]
    assert sum(width**2 for width in scaled) == pytest.approx(deviation**2, rel=1e-12)
    # Each part hides the grid of the next one, whose points lie 2^16 apart.
    assert all(width >= SMOOTHING * 2**PART_BITS for width in widths[:-1])
    assert widths[-1] >= SMOOTHING
    # A double tells 2^28 points apart within each unit of the widest part.
    assert max(widths) <= 2**MAX_PART_BITS
    assert 53 - MAX_PART_BITS >= 28


def test_the_smoothing_factor_is_that_of_2_to_minus_128() -> None:
    # η_ε(Z) ≤ sqrt(ln(2 + 2/ε)/π); a deviation is η/sqrt(2π) (Micciancio and Regev 2007).
    eta = sqrt((129 * np.log(2)) / np.pi)
    assert eta / sqrt(2 * np.pi) < SMOOTHING


@pytest.mark.parametrize("deviation", [0.0, 1.0, 2.0**17, 2.0**121, float("inf")])
def test_a_deviation_that_cannot_be_sampled_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="cannot be sampled"):
        smudging_widths(deviation)
    limbs = np.zeros((4, 4), np.int64)
    with pytest.raises(ValueError, match="cannot be sampled"):
        add_smudging(seeded(0), Limbs(limbs), deviation)
    assert not limbs.any()
