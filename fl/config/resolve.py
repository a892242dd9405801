"""From the flags to a run's parts: defaults that follow from other flags, and what cannot work.

Limits and defaults of the encryption are those of mphe.SessionParameters; here its errors get the
names of flags.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn

from fl.config.arguments import Args, read_flags
from fl.config.configs import (
    CodecConfig,
    Config,
    DataConfig,
    LearningConfig,
    PartyConfig,
    PrivacyConfig,
    RoundsConfig,
    SessionConfig,
)
from fl.config.dropout import Dropout, check_dropout
from fl.config.flags import UsageError
from fl.config.learning_flags import check_kept, check_learning
from fl.config.partition import Partition
from fl.config.privacy_flags import DEFAULT_DELTA, check_colluding, check_privacy
from fl.config.schedule import Schedule
from fl.config.schemes import SCHEMES

if TYPE_CHECKING:
    from mphe import OutOfRange, SessionParameters

_FLAGS = {"num_clients": "num_peers", "rounds": "num_iterations"}
_OF_CLIENTS = ("decryptors", "min_contributors")
MAX_THREADS = 64
MAX_SEED = 2**31 - 1
DAY = 86400.0


def parse_args(argv: Sequence[str]) -> Config:
    """Turn the words after main.py into a run's parts.

    Raises UsageError with one line that says what to do, and SystemExit(0) after --help.
    """
    return resolve(read_flags(argv))


def resolve(args: Args) -> Config:
    """Return what the flags come to together; UsageError when that cannot work."""
    _check_numbers(args)
    check_learning(args)
    check_kept(args, args.state_dir)
    if args.resume and not args.state_dir:
        raise UsageError("--resume True needs the --state_dir of the session to go on with")
    session = _session(args)
    privacy = _privacy(args, session)
    dropout = Dropout(args.simulate_dropout, args.num_peers, args.seed)
    check_dropout(dropout, session)
    weighted = args.weighting == "samples"
    return Config(
        session=_without_length(session),
        codec=CodecConfig(
            aggregation=args.aggregation,
            value_bits=args.value_bits,
            clip_norm=args.clip_norm,
            compression_rate=args.compression_rate,
            rotation=args.rotation,
            weighted=weighted,
        ),
        learning=_learning(args, weighted),
        data=DataConfig(
            dataset=args.dataset,
            partition=Partition.parse(args.partition),
            num_clients=args.num_peers,
            seed=args.seed,
        ),
        privacy=privacy,
        rounds=RoundsConfig(
            num_clients=args.num_peers,
            rounds=args.num_iterations,
            timeout=args.round_timeout,
            max_failed=args.max_failed_rounds,
            evaluate_every=args.evaluate_every,
            dropout=dropout,
        ),
        party=_party(args),
        flags=_filled_in(args, session, privacy),
        warnings=_warnings(args, session),
    )


def is_default(flags: Mapping[str, Any], name: str) -> bool:
    """Return whether a run with these flags is the same without one of them.

    Flags as in Config.flags, of any version: what this one does not know is no default.
    """
    known = {field.name: field.default for field in dataclasses.fields(Args)}
    if name not in known or flags[name] == known[name]:
        return name in known
    others = {key: flags[key] for key in flags if key in known and key != name}
    try:
        return bool(resolve(Args(**others)).flags[name] == flags[name])
    except (UsageError, TypeError, ValueError):
        return False  # of another version, or a required one


def _learning(args: Args, weighted: bool) -> LearningConfig:
    local_rate = args.local_learning_rate
    return LearningConfig(
        model=args.model,
        rounds=args.num_iterations,
        seed=args.seed,
        learning_rate=args.learning_rate,
        schedule=Schedule.parse(args.learning_rate_schedule),
        server_optimizer=args.server_optimizer,
        local_steps=args.local_steps,
        local_rate=args.learning_rate if local_rate is None else local_rate,
        batch_size=args.batch_size_per_worker,
        clip_norm=args.clip_norm,
        weighted=weighted,
    )


def _party(args: Args) -> PartyConfig:
    own = {field.name for field in dataclasses.fields(PartyConfig)} - {"num_clients"}
    return PartyConfig(args.num_peers, **{name: getattr(args, name) for name in own})


def _check_numbers(args: Args) -> None:
    """Refuse numbers that are out of range on their own."""
    for name in ("learning_rate", "clip_norm", "round_timeout", "resiliency"):
        value = getattr(args, name)
        if value <= 0:
            raise UsageError(f"--{name} must be above 0, not {value:g}")
    for name in ("batch_size_per_worker", "max_failed_rounds"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.evaluate_every is not None and args.evaluate_every < 1:
        raise UsageError(f"--evaluate_every must be at least 1, not {args.evaluate_every}")
    if args.resiliency > 1:
        raise UsageError(
            f"--resiliency is a fraction above 0 and at most 1, not {args.resiliency:g}"
            + _fraction_hint(args.resiliency, args.num_peers)
        )
    _check_between("crypto_threads", args.crypto_threads, 1, MAX_THREADS)
    _check_between("seed", args.seed, 0, MAX_SEED)
    # Longer waits overflow timers.
    _check_between("round_timeout", args.round_timeout, 0, DAY, "one day")


def _fraction_hint(number: float, num_peers: int) -> str:
    """Return what somebody may have meant who gave a number of clients, or percent."""
    if number == int(number) and number <= num_peers:
        # Rounded down: a little more than 2/3 of three clients would be all three.
        fraction = math.floor(10_000 * number / num_peers) / 10_000
        return f": for {number:g} of {num_peers} clients give {fraction:g}"
    return f": did you mean {number / 100:g}?" if number <= 100 else ""


def _check_between(name: str, value: float, low: float, high: float, of: str = "") -> None:
    if not low <= value <= high:
        limit = f"{high:g} ({of})" if of else f"{high:g}"
        raise UsageError(f"--{name} must be between {low:g} and {limit}, not {value:g}")


def _threshold(args: Args) -> int:
    """Return the decryptors needed: max(2, ceil(resiliency * num_peers)), all when not robust."""
    if not args.robust:
        return args.num_peers
    # repr() of a float is the decimal that was typed; 0.07 * 100 as floats is above 7.
    return max(2, math.ceil(Fraction(repr(args.resiliency)) * args.num_peers))


def _session(args: Args) -> SessionParameters:
    """Return the session's parameters for an update of one value; UsageError if they are none."""
    if args.max_corrupt is not None and not args.verify_aggregate:
        raise UsageError("--max_corrupt is used with --verify_aggregate True only: add that")
    for name in ("verify_aggregate", "verify_clients"):
        if getattr(args, name) and not SCHEMES[args.aggregation].encrypts:
            raise UsageError(
                f"--aggregation {args.aggregation} has nothing to verify: leave out --{name}"
            )
    # Here, because NumPy comes with them, and what is wrong on its own does not have to wait.
    from mphe import OutOfRange, SessionParameters

    try:
        return SessionParameters(
            num_clients=args.num_peers,
            threshold=_threshold(args),
            length=1,
            rounds=args.num_iterations,
            robust=args.robust,
            encryption=args.encryption,
            value_bits=args.value_bits,
            decryptors=args.decryptors,
            min_contributors=args.min_contributors,
            max_attempts=args.max_attempts,
            verified=args.verify_aggregate,
            max_corrupt=args.max_corrupt,
            verify_clients=args.verify_clients,
        )
    except OutOfRange as error:
        _refuse(args, error)


def _without_length(session: SessionParameters) -> SessionConfig:
    names = [field.name for field in dataclasses.fields(SessionConfig)]
    return SessionConfig(**{name: getattr(session, name) for name in names})


def _refuse(args: Args, error: OutOfRange) -> NoReturn:
    """Say in flags what SessionParameters says in its fields."""
    n, t, c = args.num_peers, _threshold(args), args.max_corrupt or 0
    k = n if args.decryptors is None else args.decryptors
    if error.field == "num_clients" and n < 2:
        raise UsageError(
            f"--num_peers must be at least 2, not {n}: a sum over one client hides nothing"
        )
    if error.field == "num_clients" and n < error.low:
        raise UsageError(
            f"--verify_aggregate True needs at least {error.low} clients: raise --num_peers"
        )
    if error.field == "decryptors" and not args.robust and 2 <= k <= n:
        raise UsageError(
            f"--robust False needs every client to decrypt: leave out --decryptors {k} or use "
            "--robust True"
        )
    if error.field == "threshold":
        raise UsageError(
            f"--resiliency {args.resiliency:g} needs {t} of {n} clients to decrypt but "
            f"--decryptors is {k}: lower the one or raise the other"
        )
    if error.field == "max_corrupt" and error.high < 0:
        raise UsageError(
            f"--verify_aggregate True needs more than half of the {k} decryptors to decrypt, not "
            f"{t}: raise --resiliency, or lower --decryptors"
        )
    if error.field == "max_corrupt" and c >= 0:
        raise UsageError(
            f"--verify_aggregate True cannot withstand {c} corrupt of {n} clients with {t} of {k} "
            f"decryptors (at most {error.high}): raise --resiliency, or lower --max_corrupt or "
            "--decryptors"
        )
    flag = _FLAGS.get(error.field, error.field)
    value = getattr(args, flag)
    if error.field == "min_contributors" and value < error.low > 2:
        raise UsageError(
            f"--min_contributors must be at least {error.low} with --max_corrupt {error.low - 2}, "
            f"not {value}"
        )
    if value < 1 and value < error.low:
        raise UsageError(f"--{flag} must be at least {error.low}, not {value}")
    of = "--num_peers" if error.field in _OF_CLIENTS else ""
    _check_between(flag, value, error.low, error.high, of)
    raise UsageError(f"--{flag}: {error}")


def _privacy(args: Args, session: SessionParameters) -> PrivacyConfig | None:
    """Return what differential privacy is asked for; UsageError when that cannot work."""
    if not check_privacy(args):
        return None
    given = args.dp_colluding
    colluding = max(1, session.max_corrupt) if given is None else given
    check_colluding(
        colluding,
        session.min_contributors,
        session.threshold,
        session.verified,
        session.max_corrupt,
    )
    _check_combinations(args)
    return PrivacyConfig(
        epsilon=args.dp_epsilon,
        delta=DEFAULT_DELTA if args.dp_delta is None else args.dp_delta,
        unit=args.dp_unit or "sample",
        colluding=colluding,
        noise_multiplier=args.dp_noise_multiplier,
        sampling_rate=args.dp_sampling_rate,
        min_contributors=session.min_contributors,
        num_clients=args.num_peers,
        rounds=args.num_iterations,
        batch_size=args.batch_size_per_worker,
    )


def _check_combinations(args: Args) -> None:
    """Refuse what differential privacy does not go together with."""
    if not SCHEMES[args.aggregation].hides:
        raise UsageError(
            "--dp_epsilon counts on sums that nobody takes apart: leave out --aggregation "
            f"{args.aggregation}"
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
        if args.dp_sampling_rate is not None:
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
    if args.role and args.dp_sampling_rate is None:
        raise UsageError(
            "with --role nobody knows how many samples the others have: give all parties the same "
            "--dp_sampling_rate, such as --batch_size_per_worker divided by the fewest samples"
        )


_SETTLED = ("decryptors", "min_contributors", "verify_clients")


def _filled_in(
    args: Args, session: SessionParameters, privacy: PrivacyConfig | None
) -> dict[str, object]:
    """Return all flags with the values that they have, whether typed or not."""
    flags = dataclasses.asdict(args)
    flags |= {name: getattr(session, name) for name in _SETTLED}
    if session.verified:
        flags["max_corrupt"] = session.max_corrupt
    if privacy is not None:
        flags |= {f"dp_{name}": getattr(privacy, name) for name in ("delta", "unit", "colluding")}
    return flags


def _warnings(args: Args, session: SessionParameters) -> tuple[str, ...]:
    """Return lines the user should see before the run starts."""
    lines = []
    t, k = session.threshold, session.decryptors
    if not args.tls:
        lines.append("--tls False sends everything over open connections: for benchmarks only")
    scheme = SCHEMES[args.aggregation]
    if not scheme.hides:
        lines.append(
            f"--aggregation {args.aggregation} shows every update to the server: no privacy"
        )
    elif session.verified:
        lines.append(
            f"--verify_aggregate True withstands a lying server with {session.max_corrupt} of "
            f"{session.num_clients} clients corrupt (--max_corrupt)"
        )
        if not args.dp_epsilon:
            lines.append(
                "--verify_aggregate True checks what is decrypted, not the model: a server that "
                "lies can still read training data out of sums; only --dp_epsilon bounds that"
            )
        if not args.role:
            lines.append(
                "under mpirun rank 0 takes part in handing out the certificates: against a "
                "server that may lie, use --role and a roster file"
            )
    elif scheme.encrypts and 2 * t <= k:
        lines.append(
            f"two disjoint groups of {t} of {k} decryptors can both "
            f"decrypt; --resiliency above 0.5 of the decryptors rules that out"
        )
    if not args.robust and args.resiliency != 1.0:
        lines.append("--resiliency is not used with --robust False: all clients must decrypt")
    return tuple(lines)
