"""Flags of differential privacy, and what they refuse (docs/privacy.md)."""

import dataclasses

from fl.config.configs import UNITS
from fl.config.flags import UsageError, flag, one_of, real, whole_number

DEFAULT_DELTA = 1e-5
MAX_EPSILON = 30.0
_NEEDS_EPSILON = ("dp_delta", "dp_unit", "dp_colluding", "dp_noise_multiplier", "dp_sampling_rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyFlags:
    """The flags that say how private the published sums are."""

    dp_epsilon: float = flag(
        real,
        "differential privacy: clients add noise so that all sums together reveal no more of one "
        "unit than this; 0 is off",
        0.0,
    )
    dp_delta: float | None = flag(
        real, f"probability that --dp_epsilon does not bound; default: {DEFAULT_DELTA:g}", None
    )
    dp_unit: str | None = flag(
        one_of(UNITS),
        "what is protected: sample, one training sample; client, all that one client has; "
        "default: sample",
        None,
    )
    dp_colluding: int | None = flag(
        whole_number,
        "clients who may tell others their own noise; default: 1, or --max_corrupt if that is more",
        None,
    )
    dp_noise_multiplier: float | None = flag(
        real,
        "deviation of the noise in a sum divided by what one unit can change in it; training "
        "stops when the budget is spent; default: the smallest that lasts for --num_iterations",
        None,
    )
    dp_sampling_rate: float | None = flag(
        real,
        "probability with which a sample is in a batch, with --dp_unit sample; default: "
        "--batch_size_per_worker divided by the samples of the client that has the fewest",
        None,
    )


def check_privacy(args: PrivacyFlags) -> bool:
    """Return whether privacy is asked for; UsageError for numbers that cannot work."""
    if args.dp_epsilon == 0:
        for name in _NEEDS_EPSILON:
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} is used with --dp_epsilon only: add that")
        return False
    if not 0 < args.dp_epsilon <= MAX_EPSILON:
        raise UsageError(
            f"--dp_epsilon must be above 0 and at most {MAX_EPSILON:g}, not {args.dp_epsilon:g}: "
            "more protects nobody, so leave it out"
        )
    for name, low, high, words in (
        ("dp_delta", 1e-15, 0.1, "between 1e-15 and 0.1"),
        ("dp_noise_multiplier", 0.01, 1e4, "between 0.01 and 10000"),
        ("dp_sampling_rate", 1e-6, 1.0, "between 1e-6 and 1"),
    ):
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            must = words if value > 0 else "above 0"
            raise UsageError(f"--{name} must be {must}, not {value:g}")
    if args.dp_colluding is not None and args.dp_colluding < 0:
        raise UsageError(f"--dp_colluding must be at least 0, not {args.dp_colluding}")
    return True


def check_colluding(
    colluding: int, min_contributors: int, threshold: int, verified: bool, max_corrupt: int
) -> None:
    """Refuse so many that their own noise, or what they can decrypt, leaves none; UsageError."""
    if colluding >= min_contributors:
        raise UsageError(
            f"--dp_colluding {colluding} leaves no noise that they do not know in a sum "
            f"of --min_contributors {min_contributors}: raise the one or lower the other"
        )
    if colluding >= threshold:
        raise UsageError(
            f"--dp_colluding {colluding} clients could decrypt single updates, since "
            f"{threshold} are enough: raise --resiliency or lower --dp_colluding"
        )
    if verified and colluding < max_corrupt:
        raise UsageError(
            f"--dp_colluding must be at least --max_corrupt {max_corrupt}: a client that "
            "helps a lying server tells it its noise too"
        )
