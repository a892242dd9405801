"""Noise that makes the sum of updates differentially private (docs/privacy.md).

Every contributor adds a discrete Gaussian to its integers. With step s, d values, sensitivity C and
h contributors whose noise nobody knows, one unit changes the integers of a sum by at most

    Δ = C/s + sqrt(d),   and each contributor's noise has σ = z·Δ/sqrt(h), at least 3.

So a sum holds noise of z·Δ, whatever range the server sends and whoever drops out. The grid
has room for the range R and 12 deviations: (2^(bits-1) - 1)·s = R + (12·σ + 1)·s.
"""

from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.config.flags import Partition, UsageError
from fl.data.partition import split
from fl.privacy.accountant import Accountant, smallest_noise
from mphe.arithmetic.sampling import RandomSource
from mphe.update.compression import sent_length
from mphe.update.noise import DISTANCE, gaussian
from mphe.update.quantise import FINEST_BITS, Figures, Integers, Mean, half_levels, quantise

TAIL = 12.0
"""Deviations of its noise that one contributor's grid has room for."""
MIN_DEVIATION = 3.0
"""Of one contributor's noise: sums of narrower discrete Gaussians are not close enough to one."""
# Doubles are not real numbers: each result is right to 1e-9 of its size or better.
_ROUNDING = 1 + 1e-6
# Part of δ that noise which left the grid and imperfect samples may take.
_SLACK = 0.01
_LARGEST_COORDINATE = 32.0
_MUCH_INFLATION = 1.1
_FINE_BITS = 20
SILENT = Figures(0.0)
"""What a client reports of itself: nothing, with weight 1."""


@dataclass(frozen=True)
class Grid:
    """The integers of one round.

    Attributes:
        step: value of one integer.
        reach: value of the largest integer, (2^(bits-1) - 1)·step; what dequantising needs.
        deviation: of one contributor's noise, in steps.
    """

    step: float
    reach: float
    deviation: float


@dataclass(frozen=True)
class Privacy:
    """How the sums of one run are protected; the same for all parties.

    Attributes:
        epsilon, delta: of the whole run.
        noise_multiplier: z.
        sampling_rate: q of Poisson-sampled batches, 1 where a unit is in every sum.
        sensitivity: C, most that one unit changes a sum of updates, as an L2 norm.
        honest: h, contributors to every sum whose noise nobody else knows.
        size: values of an update.
        bits: value_bits.
        contributions: most that a run can have, for what may go wrong in each.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    sampling_rate: float
    sensitivity: float
    honest: int
    size: int
    bits: int
    contributions: int

    def grid(self, reach: float) -> Grid:
        """Return the grid for values within ±reach; UsageError when the bits do not suffice."""
        half = half_levels(self.bits)
        share = self.noise_multiplier * _ROUNDING / sqrt(self.honest)
        left = half - 1 - TAIL * share * sqrt(self.size)
        step = (reach + TAIL * share * self.sensitivity) / left if left > 0 else inf
        deviation = share * (self.sensitivity / step + sqrt(self.size))
        if left > 0 and deviation < MIN_DEVIATION:
            # A larger step, at which even less noise would do.
            deviation, left = MIN_DEVIATION, half - 1 - TAIL * MIN_DEVIATION
            step = reach / left
        if left <= 0:
            raise UsageError(
                f"the noise for {self.size} values (multiplier {self.noise_multiplier:g}) does not "
                f"fit {self.bits} bits: raise --value_bits, or --dp_epsilon, or use a smaller model"
            )
        return Grid(step, half * step, deviation)

    def start_reach(self, limit: float) -> float:
        """Return the range of the first round: coordinates of a long vector are small."""
        return limit * min(1.0, _LARGEST_COORDINATE / sqrt(self.size))

    def inflation(self, reach: float) -> float:
        """Return by what factor rounding to the grid enlarges the sensitivity, hence the noise."""
        return 1 + self.grid(reach).step * sqrt(self.size) / self.sensitivity

    def encode(
        self, values: NDArray[Any], reach: float, rng: np.random.Generator, secret: RandomSource
    ) -> Integers:
        """Return the noisy integers of an update and its silent counts, int32 (payload_length,).

        Args:
            values: finite floats (size,), within the sensitivity.
            reach: R that the server sent; values beyond ±R are cut, which brings none further
                apart.
            rng: of the stochastic rounding, may be public.
            secret: of the noise.
        """
        grid = self.grid(reach)
        integers = quantise(np.clip(values, -reach, reach), grid.reach, self.bits, SILENT, rng)
        noisy = integers[: self.size] + gaussian(grid.deviation).sample(secret, self.size)
        integers[: self.size] = np.clip(noisy, 0, 2 * half_levels(self.bits))
        return integers

    @cached_property
    def budget(self) -> "Budget":
        """Return the accountant of this run."""
        return Budget(self)


def failure_probability(contributions: int, size: int) -> float:
    """Return a bound on the probability that any noise of a run is not what the proof assumes.

    Noise beyond 12σ is cut (a discrete Gaussian is no wider than a Gaussian), and each sample is
    off by DISTANCE.
    """
    return contributions * size * (2 * exp(-(TAIL**2) / 2) + DISTANCE)


def sum_divergence(honest: int, deviation: float) -> float:
    """Return how far a sum of discrete Gaussians is from one, as the largest ratio's logarithm.

    Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), τ of theorem 1, for one coordinate.
    """
    terms = (exp(-2 * pi**2 * deviation**2 * k / (k + 1)) for k in range(1, honest))
    return 10 * sum(terms)


class Budget:
    """What published sums have cost, and how many there may be."""

    def __init__(self, privacy: Privacy) -> None:
        """Count for these parameters; computes nothing yet."""
        self._privacy = privacy
        p = privacy
        rounds_times_values = p.contributions * p.size
        self._slack = 2 * rounds_times_values * sum_divergence(p.honest, MIN_DEVIATION)
        delta = p.delta * (1 - _SLACK)
        self._accountant = Accountant(p.noise_multiplier, p.sampling_rate, delta)

    def spent(self, rounds: int) -> float:
        """Return ε after so many sums."""
        return self._accountant.epsilon(rounds) + (self._slack if rounds else 0.0)

    @cached_property
    def rounds(self) -> int:
        """How many sums may be published."""
        return self._accountant.most_rounds(self._privacy.epsilon - self._slack)


def make_privacy(args: Args, size: int, labels: NDArray[Any] | None) -> Privacy | None:
    """Return how a run is protected, None without --dp_epsilon.

    Args:
        args: of the run.
        size: values of the model.
        labels: of the training data that this program splits; None where it does not.

    Raises:
        UsageError: it cannot be protected like that.
    """
    if not args.dp_epsilon:
        return None
    sampled = args.dp_unit == "sample"
    rate = _sampling_rate(args, labels) if sampled else 1.0
    length = sent_length(size, args.compression_rate)
    contributions = args.num_peers * args.num_iterations
    if failure_probability(contributions, length) * (1 + exp(args.dp_epsilon)) > (
        _SLACK * args.dp_delta
    ):
        raise UsageError(
            f"--dp_epsilon {args.dp_epsilon:g} and --dp_delta {args.dp_delta:g} cannot both be "
            "promised here: lower the one or raise the other"
        )
    noise = args.dp_noise_multiplier or smallest_noise(
        args.dp_epsilon, args.dp_delta * (1 - _SLACK), rate, args.num_iterations
    )
    if noise is None:
        raise UsageError(
            f"no noise makes --dp_epsilon {args.dp_epsilon:g} last for {args.num_iterations} "
            "rounds: raise it, or lower --num_iterations"
        )
    privacy = Privacy(
        epsilon=args.dp_epsilon,
        delta=args.dp_delta,
        noise_multiplier=noise,
        sampling_rate=rate,
        sensitivity=args.clip_norm / (args.batch_size_per_worker if sampled else 1),
        honest=args.min_contributors - args.dp_colluding,
        size=length,
        bits=args.value_bits,
        contributions=contributions,
    )
    _check(args, privacy)
    return privacy


def _check(args: Args, privacy: Privacy) -> None:
    """Refuse too few bits, and a budget that no round fits; UsageError."""
    for reach in (privacy.start_reach(args.clip_norm), args.clip_norm):
        privacy.grid(reach)
    if args.dp_noise_multiplier and not privacy.budget.rounds:
        raise UsageError(
            f"one round with --dp_noise_multiplier {args.dp_noise_multiplier:g} costs more than "
            f"--dp_epsilon {args.dp_epsilon:g}: raise the one or the other"
        )


def _sampling_rate(args: Args, labels: NDArray[Any] | None) -> float:
    if args.dp_sampling_rate:
        return args.dp_sampling_rate
    if labels is None:
        raise UsageError("--dp_sampling_rate is needed where clients bring their own data")
    parts = split(Partition.parse(args.partition), labels, args.num_peers, args.seed)
    return min(1.0, args.batch_size_per_worker / min(len(part) for part in parts))


def describe(args: Args, privacy: Privacy) -> list[str]:
    """Return what the user should see at the start."""
    sampled = privacy.sampling_rate < 1
    batches = f", batches of rate {privacy.sampling_rate:.4g}" if sampled else ""
    lines = [
        f"({privacy.epsilon:g}, {privacy.delta:g})-differential privacy of each {args.dp_unit}, "
        f"also when {args.dp_colluding} of {args.min_contributors} contributors collude: "
        f"noise multiplier {privacy.noise_multiplier:g}{batches}, "
        f"{privacy.budget.rounds} rounds in the budget"
    ]
    inflation = privacy.inflation(privacy.start_reach(args.clip_norm))
    if inflation > _MUCH_INFLATION and args.value_bits < FINEST_BITS:
        better = _FINE_BITS if args.value_bits < _FINE_BITS else FINEST_BITS
        lines.append(
            f"rounding to {args.value_bits} bits makes the noise {100 * (inflation - 1):.0f} % "
            f"larger in the first round: --value_bits {better} avoids that"
        )
    return lines


def without_figures(mean: Mean) -> Mean:
    """Return a mean that says nothing of what private clients do not report."""
    return Mean(mean.update, 0, None)
