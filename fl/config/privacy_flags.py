"""Flags of differential privacy, and what they refuse (docs/privacy.md)."""

import dataclasses
from typing import TYPE_CHECKING

from fl.config.flags import UsageError, flag, one_of, real, whole

if TYPE_CHECKING:
    from fl.config.arguments import Args

UNITS = ("sample", "client")
DEFAULT_DELTA = 1e-5
MAX_EPSILON = 30.0
_NEEDS_EPSILON = ("dp_delta", "dp_unit", "dp_colluding", "dp_noise_multiplier", "dp_sampling_rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyFlags:
    """The flags that say how private the published sums are; 0, -1 and "" stand for defaults."""

    dp_epsilon: float = flag(
        real,
        "differential privacy: clients add noise so that all sums together reveal no more of one "
        "unit than this; 0 is off",
        0.0,
    )
    dp_delta: float = flag(
        real, f"probability that --dp_epsilon does not bound; default: {DEFAULT_DELTA:g}", 0.0
    )
    dp_unit: str = flag(
        one_of(*UNITS),
        "what is protected: sample, one training sample; client, all that one client has; "
        "default: sample",
        "",
    )
    dp_colluding: int = flag(
        whole,
        "clients who may tell others their own noise; default: 1, or --max_corrupt if that is more",
        -1,
    )
    dp_noise_multiplier: float = flag(
        real,
        "deviation of the noise in a sum divided by what one unit can change in it; training "
        "stops when the budget is spent; default: the smallest that lasts for --num_iterations",
        0.0,
    )
    dp_sampling_rate: float = flag(
        real,
        "probability with which a sample is in a batch, with --dp_unit sample; default: "
        "--batch_size_per_worker divided by the samples of the client that has the fewest",
        0.0,
    )


def check_typed(given: dict[str, object]) -> None:
    """Refuse what stands for a default when somebody typed it; UsageError."""
    for name in ("dp_delta", "dp_noise_multiplier", "dp_sampling_rate"):
        if given.get(name) == 0:
            raise UsageError(f"--{name} must be above 0, not 0")
    colluding = given.get("dp_colluding", 0)
    if isinstance(colluding, int) and colluding < 0:
        raise UsageError(f"--dp_colluding must be at least 0, not {colluding}")


def check_privacy(args: "Args") -> None:
    """Refuse what cannot work and resolve defaults, min_contributors being known; UsageError."""
    defaults = {field.name: field.default for field in dataclasses.fields(PrivacyFlags)}
    if args.dp_epsilon == 0:
        for name in _NEEDS_EPSILON:
            if getattr(args, name) != defaults[name]:
                raise UsageError(f"--{name} is used with --dp_epsilon only: add that")
        return
    if not 0 < args.dp_epsilon <= MAX_EPSILON:
        raise UsageError(
            f"--dp_epsilon must be above 0 and at most {MAX_EPSILON:g}, not {args.dp_epsilon:g}: "
            "more protects nobody, so leave it out"
        )
    _resolve(args)
    _check_numbers(args)
    _check_combinations(args)


def _resolve(args: "Args") -> None:
    """Put the defaults in place of what stands for them."""
    if args.dp_delta == 0:
        object.__setattr__(args, "dp_delta", DEFAULT_DELTA)
    if not args.dp_unit:
        object.__setattr__(args, "dp_unit", "sample")
    if args.dp_colluding < 0:
        object.__setattr__(args, "dp_colluding", max(1, args.max_corrupt))


def _check_numbers(args: "Args") -> None:
    if not 1e-15 <= args.dp_delta <= 0.1:
        raise UsageError(f"--dp_delta must be between 1e-15 and 0.1, not {args.dp_delta:g}")
    if args.dp_unit not in UNITS:
        raise UsageError(f"--dp_unit: choose one of {', '.join(UNITS)}, not {args.dp_unit!r}")
    if args.dp_noise_multiplier and not 0.01 <= args.dp_noise_multiplier <= 1e4:
        raise UsageError(
            f"--dp_noise_multiplier must be between 0.01 and 10000, not "
            f"{args.dp_noise_multiplier:g}"
        )
    if args.dp_sampling_rate and not 1e-6 <= args.dp_sampling_rate <= 1:
        raise UsageError(
            f"--dp_sampling_rate must be between 1e-6 and 1, not {args.dp_sampling_rate:g}"
        )
    if args.dp_colluding >= args.min_contributors:
        raise UsageError(
            f"--dp_colluding {args.dp_colluding} leaves no noise that they do not know in a sum "
            f"of --min_contributors {args.min_contributors}: raise the one or lower the other"
        )

    if args.dp_colluding >= args.threshold:
        raise UsageError(
            f"--dp_colluding {args.dp_colluding} clients could decrypt single updates, since "
            f"{args.threshold} are enough: raise --resiliency or lower --dp_colluding"
        )
    if args.verify_aggregate and args.dp_colluding < args.max_corrupt:
        raise UsageError(
            f"--dp_colluding must be at least --max_corrupt {args.max_corrupt}: a client that "
            "helps a lying server tells it its noise too"
        )


def _check_combinations(args: "Args") -> None:
    if args.aggregation == "plain":
        raise UsageError(
            "--dp_epsilon counts on sums that nobody takes apart: leave out --aggregation plain"
        )
    if args.weighting != "uniform":
        raise UsageError(
            "--weighting samples tells how many samples there are: leave it out with --dp_epsilon"
        )
    if args.rotation:
        raise UsageError(
            "--rotation True saves bits that the noise of --dp_epsilon needs: leave it out"
        )
    if args.dp_unit == "client":
        if args.dp_sampling_rate:
            raise UsageError(
                "--dp_sampling_rate is of use with --dp_unit sample only: leave it out"
            )
        return
    if args.local_steps > 1 or args.compression_rate < 1:
        name = "--local_steps above 1" if args.local_steps > 1 else "--compression_rate below 1"
        raise UsageError(
            f"{name} spreads one sample over more than its share of a sum: leave it out, or use "
            "--dp_unit client"
        )
    if args.role and not args.dp_sampling_rate:
        raise UsageError(
            "with --role nobody knows how many samples the others have: give all parties the same "
            "--dp_sampling_rate, such as --batch_size_per_worker divided by the fewest samples"
        )
