"""What differential privacy a run promises, and what that costs (docs/privacy.md).

The noise itself is `mphe.update.PrivateUpdateCodec`'s.
"""

from dataclasses import dataclass
from functools import cached_property
from math import exp, pi, sqrt
from typing import Any

from numpy.typing import NDArray

from fl.config.configs import CodecConfig, DataConfig, PrivacyConfig
from fl.config.exits import Refused
from fl.data.partition import split
from fl.privacy.accountant import Accountant, smallest_noise
from mphe import ParameterError
from mphe.update import (
    FINEST_BITS,
    MIN_DEVIATION,
    NoiseScale,
    failure_probability,
    noise_grid,
    sent_length,
    start_range,
)

# Part of δ that noise which left the grid and imperfect samples may take.
_SLACK = 0.01
_MUCH_INFLATION = 1.1
_FINE_BITS = 20


class PrivacyError(Refused):
    """What the flags promise cannot be kept; the message is one line that says what to do."""


@dataclass(frozen=True)
class Privacy:
    """How the sums of one run are protected; the same for all parties.

    Attributes:
        unit: sample or client.
        epsilon, delta: of the whole run.
        noise_multiplier: z.
        sampling_rate: q of Poisson-sampled batches, 1 where a unit is in every sum.
        sensitivity: C, most that one unit changes a sum of updates, as an L2 norm.
        honest: h, contributors to every sum whose noise nobody else knows.
        size: values of an update.
        bits: value_bits.
        contributions: most that a run can have, for what may go wrong in each.
    """

    unit: str
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


def make_privacy(
    config: PrivacyConfig | None,
    codec: CodecConfig,
    data: DataConfig,
    size: int,
    labels: NDArray[Any] | None,
) -> Privacy | None:
    """Return how a run is protected, None where that is not asked for.

    Args:
        config: what is asked for.
        codec: how updates travel.
        data: how this program splits the training data.
        size: values of the model.
        labels: of the training data that this program splits; None where it does not.

    Raises:
        PrivacyError: it cannot be protected like that.
    """
    if config is None:
        return None
    sampled = config.unit == "sample"
    rate = _sampling_rate(config, data, labels) if sampled else 1.0
    length = sent_length(size, codec.compression_rate)
    contributions = config.num_clients * config.rounds
    if failure_probability(contributions, length) * (1 + exp(config.epsilon)) > (
        _SLACK * config.delta
    ):
        raise PrivacyError(
            f"--dp_epsilon {config.epsilon:g} and --dp_delta {config.delta:g} cannot both be "
            "promised here: lower the one or raise the other"
        )
    noise = config.noise_multiplier or smallest_noise(
        config.epsilon, config.delta * (1 - _SLACK), rate, config.rounds
    )
    if noise is None:
        raise PrivacyError(
            f"no noise makes --dp_epsilon {config.epsilon:g} last for {config.rounds} "
            "rounds: raise it, or lower --num_iterations"
        )
    privacy = Privacy(
        unit=config.unit,
        epsilon=config.epsilon,
        delta=config.delta,
        noise_multiplier=noise,
        sampling_rate=rate,
        sensitivity=codec.clip_norm / (config.batch_size if sampled else 1),
        honest=config.min_contributors - config.colluding,
        size=length,
        bits=codec.value_bits,
        contributions=contributions,
    )
    _check(config, codec, privacy)
    return privacy


def _check(config: PrivacyConfig, codec: CodecConfig, privacy: Privacy) -> None:
    """Refuse too few bits, and a budget that no round fits; PrivacyError."""
    try:
        noise_grid(privacy.scale, privacy.size, privacy.bits, codec.clip_norm)
    except ParameterError as error:
        raise PrivacyError(
            f"{error}: raise --value_bits, or --dp_epsilon, or use a smaller model"
        ) from None
    if config.noise_multiplier and not privacy.budget.rounds:
        raise PrivacyError(
            f"one round with --dp_noise_multiplier {config.noise_multiplier:g} costs more than "
            f"--dp_epsilon {config.epsilon:g}: raise the one or the other"
        )


def _sampling_rate(config: PrivacyConfig, data: DataConfig, labels: NDArray[Any] | None) -> float:
    if config.sampling_rate is not None:
        return config.sampling_rate
    if labels is None:
        raise PrivacyError("--dp_sampling_rate is needed where clients bring their own data")
    parts = split(data.partition, labels, data.num_clients, data.seed)
    return min(1.0, config.batch_size / min(len(part) for part in parts))


def describe(config: PrivacyConfig, codec: CodecConfig, privacy: Privacy) -> list[str]:
    """Return what the user should see at the start."""
    sampled = privacy.sampling_rate < 1
    batches = f", batches of rate {privacy.sampling_rate:.4g}" if sampled else ""
    lines = [
        f"({privacy.epsilon:g}, {privacy.delta:g})-differential privacy of each {privacy.unit}, "
        f"also when {config.colluding} of {config.min_contributors} contributors collude: "
        f"noise multiplier {privacy.noise_multiplier:g}{batches}, "
        f"{privacy.budget.rounds} rounds in the budget"
    ]
    inflation = privacy.inflation(start_range(codec.clip_norm, privacy.size))
    if inflation > _MUCH_INFLATION and privacy.bits < FINEST_BITS:
        better = _FINE_BITS if privacy.bits < _FINE_BITS else FINEST_BITS
        lines.append(
            f"rounding to {privacy.bits} bits makes the noise {100 * (inflation - 1):.0f} % "
            f"larger in the first round: --value_bits {better} avoids that"
        )
    return lines
