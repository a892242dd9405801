"""What differential privacy a run promises, and what that costs (docs/privacy.md).

The noise itself is `mphe.update.PrivateUpdateCodec`'s.
"""

from dataclasses import dataclass
from functools import cached_property
from math import exp, pi, sqrt
from typing import Any

from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.config.flags import Partition, UsageError
from fl.data.partition import split
from fl.privacy.accountant import Accountant, smallest_noise
from mphe.errors import ParameterError
from mphe.update.compression import sent_length
from mphe.update.private import (
    MIN_DEVIATION,
    NoiseScale,
    failure_probability,
    noise_grid,
    start_range,
)
from mphe.update.quantise import FINEST_BITS

# Part of δ that noise which left the grid and imperfect samples may take.
_SLACK = 0.01
_MUCH_INFLATION = 1.1
_FINE_BITS = 20


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

    @property
    def scale(self) -> NoiseScale:
        """How much noise the contributors of a sum add together."""
        return NoiseScale(self.noise_multiplier, self.sensitivity, self.honest)

    def inflation(self, clip_range: float) -> float:
        """Return by what factor rounding to the grid enlarges the sensitivity, hence the noise."""
        step = noise_grid(self.scale, self.size, self.bits, clip_range).step
        return 1 + step * sqrt(self.size) / self.sensitivity

    @cached_property
    def budget(self) -> "Budget":
        """Return the accountant of this run."""
        return Budget(self)


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
    try:
        noise_grid(privacy.scale, privacy.size, privacy.bits, args.clip_norm)
    except ParameterError as error:
        raise UsageError(
            f"{error}: raise --value_bits, or --dp_epsilon, or use a smaller model"
        ) from None
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
    inflation = privacy.inflation(start_range(args.clip_norm, privacy.size))
    if inflation > _MUCH_INFLATION and args.value_bits < FINEST_BITS:
        better = _FINE_BITS if args.value_bits < _FINE_BITS else FINEST_BITS
        lines.append(
            f"rounding to {args.value_bits} bits makes the noise {100 * (inflation - 1):.0f} % "
            f"larger in the first round: --value_bits {better} avoids that"
        )
    return lines
