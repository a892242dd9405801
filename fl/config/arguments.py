"""Command-line flags: one frozen dataclass, parsed strictly, refused in one line."""

import argparse
import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NoReturn

from fl.config.dropout import check_dropout
from fl.config.flags import (
    DATASETS,
    UsageError,
    address,
    dataset_name,
    flag,
    one_of,
    path,
    real,
    split_address,
    true_or_false,
    whole,
)
from fl.config.learning_flags import (
    OPTIMIZERS,
    WEIGHTINGS,
    LearningFlags,
    check_kept,
    check_learning,
)
from fl.config.privacy_flags import UNITS, PrivacyFlags, check_privacy, check_typed

ENCRYPTIONS = ("hybrid", "direct")
AGGREGATIONS = ("mphe", "plain")
ROLES = ("server", "client")
_METAVARS = MappingProxyType(
    {
        "int": "N",
        "float": "X",
        "bool": "True|False",
        "server_address": "HOST:PORT",
        "encryption": "|".join(ENCRYPTIONS),
        "aggregation": "|".join(AGGREGATIONS),
        "dataset": "|".join(DATASETS),
        "output": "DIRECTORY",
        "role": "|".join(ROLES),
        "partition": "iid|dirichlet:ALPHA|shards:K",
        "model": "cnn|FILE.py:FUNCTION",
        "learning_rate_schedule": "constant|cosine|step:N:F",
        "server_optimizer": "|".join(OPTIMIZERS),
        "weighting": "|".join(WEIGHTINGS),
        "roster": "FILE",
        "identity": "DIRECTORY",
        "state_dir": "DIRECTORY",
        "dp_unit": "|".join(UNITS),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(PrivacyFlags, LearningFlags):
    """Every flag of the command line, checked; raises UsageError on what cannot work.

    `decryptors` and `min_contributors` given as 0 stand for their defaults and hold the
    resolved numbers afterwards.
    """

    num_peers: int = flag(whole, "clients; start one process more, rank 0 is the server")
    server_address: str = flag(address, "host:port of the server's TCP socket")
    robust: bool = flag(
        true_or_false,
        "True: any t decryptors of n decrypt, see --resiliency; False: all n are needed",
    )
    learning_rate: float = flag(real, "server step on the mean update", 0.1)
    batch_size_per_worker: int = flag(whole, "samples per client and round", 256)
    num_iterations: int = flag(whole, "rounds", 100)
    resiliency: float = flag(
        real,
        "fraction r of the clients needed to decrypt, 0 < r <= 1: t = ceil(r * n), at least 2; "
        "not used with --robust False",
        1.0,
    )
    encryption: str = flag(
        one_of(*ENCRYPTIONS),
        "hybrid: one-time keys under the threshold key; direct: all under the threshold key",
        "hybrid",
    )
    aggregation: str = flag(
        one_of(*AGGREGATIONS),
        "mphe: encrypted; plain: same transport, no encryption, for comparison",
        "mphe",
    )
    value_bits: int = flag(whole, "bits of one quantised value, 4 to 24", 16)
    crypto_threads: int = flag(
        whole,
        "threads for the blocks of an update, 1 to 64; pays from about a million values on",
        1,
    )
    decryptors: int = flag(
        whole, "the first k clients hold a share of the key; default: all clients", 0
    )
    min_contributors: int = flag(
        whole,
        "fewest updates in a published sum; default: the threshold t, with "
        "--verify_aggregate True max(3, c + 2)",
        0,
    )
    verify_aggregate: bool = flag(
        true_or_false,
        "True: the server may lie; decryptors check what they decrypt, see SECURITY.md",
        False,
    )
    max_corrupt: int = flag(
        whole,
        "clients c that may help a lying server, with --verify_aggregate True; default: the most "
        "that 2t > k + c and two honest updates in a sum allow",
        -1,
    )
    round_timeout: float = flag(
        real, "most seconds to wait for clients in one step; less once steps were shorter", 60.0
    )
    max_attempts: int = flag(whole, "decryption attempts for one round", 4)
    max_failed_rounds: int = flag(whole, "give up after this many failed rounds in a row", 10)
    clip_norm: float = flag(real, "L2 norm to which a client clips its update", 3.0)
    seed: int = flag(whole, "seed of data and model; cryptography never uses it", 0)
    dataset: str = flag(
        dataset_name,
        "auto: mnist when at hand, else mnist5k; mnist: Keras's cache or download; mnist5k: 5,000 "
        "real digits, always there; npz:PATH: arrays x_train, y_train, x_test, y_test; "
        "FILE.py:FUNCTION returns these four arrays",
        "auto",
    )
    output: str = flag(path, "directory for results; default: runs/<time>", "")
    evaluate_every: int = flag(
        whole,
        "evaluate the model on the test data after every N-th round and the last, and wait for "
        "it; default: the last, and beside the rounds as often as that takes no time from them",
        0,
    )
    quiet: bool = flag(true_or_false, "True: show only warnings and the final summary", False)
    tls: bool = flag(
        true_or_false, "encrypt and authenticate connections; False is for benchmarks only", True
    )
    role: str = flag(
        one_of(*ROLES),
        "run one party without mpirun, with --roster and --identity; default: mpirun decides",
        "",
    )
    roster: str = flag(path, "JSON file with the certificates of all parties; default: none", "")
    identity: str = flag(path, "directory made by --new_identity; default: none", "")
    state_dir: str = flag(
        path,
        "directory in which each party keeps what it needs to go on after its process died; "
        "default: none",
        "",
    )
    resume: bool = flag(
        true_or_false, "True: go on with the session in --state_dir after the server died", False
    )

    def __post_init__(self) -> None:
        """Resolve defaults that depend on other flags, then check everything."""
        _check_numbers(self)
        _check_address_and_words(self)
        check_learning(self)
        check_kept(self, self.state_dir)
        if not self.decryptors:
            object.__setattr__(self, "decryptors", self.num_peers)
        _check_threshold(self)
        check_liars(self)
        if not self.min_contributors:
            object.__setattr__(self, "min_contributors", self._default_minimum())
        _check_between("min_contributors", self.min_contributors, 2, self.num_peers, "--num_peers")
        check_privacy(self)
        sizes = (self.num_peers, self.decryptors, self.threshold, self.min_contributors)
        check_dropout(self.simulate_dropout, *sizes)

    def _default_minimum(self) -> int:
        """Return t; with a lying server two more than the corrupt, and at least 3."""
        return max(3, self.max_corrupt + 2) if self.verify_aggregate else self.threshold

    @property
    def host(self) -> str:
        """Host part of server_address, without brackets."""
        return split_address(self.server_address)[0]

    @property
    def port(self) -> int:
        """Port part of server_address."""
        return split_address(self.server_address)[1]

    @property
    def threshold(self) -> int:
        """Decryptors needed: max(2, ceil(resiliency * num_peers)), all when not robust."""
        if not self.robust:
            return self.num_peers
        # repr() of a float is the decimal that was typed; 0.07 * 100 as floats is above 7.
        return max(2, math.ceil(Fraction(repr(self.resiliency)) * self.num_peers))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines the user should see before the run starts."""
        lines = []
        if not self.tls:
            lines.append("--tls False sends everything over open connections: for benchmarks only")
        if self.aggregation == "plain":
            lines.append("--aggregation plain shows every update to the server: no privacy")
        elif self.verify_aggregate:
            lines.append(
                f"--verify_aggregate True withstands a lying server with {self.max_corrupt} of "
                f"{self.num_peers} clients corrupt (--max_corrupt)"
            )
            if not self.role:
                lines.append(
                    "under mpirun rank 0 takes part in handing out the certificates: against a "
                    "server that may lie, use --role and a roster file"
                )
        elif 2 * self.threshold <= self.decryptors:
            lines.append(
                f"two disjoint groups of {self.threshold} of {self.decryptors} decryptors can both "
                f"decrypt; --resiliency above 0.5 of the decryptors rules that out"
            )
        if not self.robust and self.resiliency != 1.0:
            lines.append("--resiliency is not used with --robust False: all clients must decrypt")
        return tuple(lines)


def _check_between(name: str, value: float, low: float, high: float, of: str = "") -> None:
    if not low <= value <= high:
        limit = f"{high:g} ({of})" if of else f"{high:g}"
        raise UsageError(f"--{name} must be between {low:g} and {limit}, not {value:g}")


def _check_numbers(args: Args) -> None:
    """Refuse numbers that are out of range on their own."""
    if args.num_peers < 2:
        raise UsageError(
            f"--num_peers must be at least 2, not {args.num_peers}: a sum over one client hides "
            "nothing"
        )
    for name in ("learning_rate", "clip_norm", "round_timeout", "resiliency"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"--{name} must be above 0, not {value:g}")
    names = ("batch_size_per_worker", "num_iterations", "max_attempts", "max_failed_rounds")
    for name in names:
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.evaluate_every < 0:
        raise UsageError(f"--evaluate_every must be at least 1, not {args.evaluate_every}")
    for name in ("decryptors", "min_contributors"):
        if getattr(args, name) < 0:
            raise UsageError(f"--{name} must be at least 2, not {getattr(args, name)}")
    if args.resiliency > 1:
        raise UsageError(
            f"--resiliency is a fraction above 0 and at most 1, not {args.resiliency:g}"
            + _fraction_hint(args.resiliency, args.num_peers)
        )
    _check_between("value_bits", args.value_bits, 4, 24)
    _check_between("crypto_threads", args.crypto_threads, 1, 64)
    _check_between("max_attempts", args.max_attempts, 1, 64)
    _check_between("num_iterations", args.num_iterations, 1, 1 << 20)
    _check_between("seed", args.seed, 0, 2**31 - 1)
    # Longer waits overflow timers.
    _check_between("round_timeout", args.round_timeout, 0, 86400, "one day")


def _fraction_hint(number: float, num_peers: int) -> str:
    """Return what somebody may have meant who gave a number of clients, or percent."""
    if number == int(number) and number <= num_peers:
        # Rounded down: a little more than 2/3 of three clients would be all three.
        fraction = math.floor(10_000 * number / num_peers) / 10_000
        return f": for {number:g} of {num_peers} clients give {fraction:g}"
    return f": did you mean {number / 100:g}?" if number <= 100 else ""


def _check_address_and_words(args: Args) -> None:
    """Hold values that did not come through the parser to the same rules."""
    if args.resume and not args.state_dir:
        raise UsageError("--resume True needs the --state_dir of the session to go on with")
    for name, read in (
        ("server_address", address),
        ("encryption", one_of(*ENCRYPTIONS)),
        ("aggregation", one_of(*AGGREGATIONS)),
        ("dataset", dataset_name),
    ):
        try:
            read(getattr(args, name))
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None


def _check_threshold(args: Args) -> None:
    """Refuse sets of decryptors that could never reach the threshold."""
    if args.decryptors > args.num_peers or args.decryptors < 2:
        _check_between("decryptors", args.decryptors, 2, args.num_peers, "--num_peers")
    if not args.robust and args.decryptors != args.num_peers:
        raise UsageError(
            f"--robust False needs every client to decrypt: leave out --decryptors "
            f"{args.decryptors} or use --robust True"
        )
    if args.threshold > args.decryptors:
        raise UsageError(
            f"--resiliency {args.resiliency:g} needs {args.threshold} of {args.num_peers} clients "
            f"to decrypt but --decryptors is {args.decryptors}: lower the one or raise the other"
        )


def check_liars(args: Args) -> None:
    """Refuse what cannot withstand a lying server; resolve the default of max_corrupt."""
    if not args.verify_aggregate:
        if args.max_corrupt != -1:
            raise UsageError("--max_corrupt is used with --verify_aggregate True only: add that")
        return
    if args.aggregation == "plain":
        raise UsageError("--aggregation plain has nothing to verify: leave out --verify_aggregate")
    n, t, k, given = args.num_peers, args.threshold, args.decryptors, args.max_corrupt
    most = min(2 * t - k - 1, n - 2)
    if n >= 3 and most < 0:
        raise UsageError(
            f"--verify_aggregate True needs more than half of the {k} decryptors to decrypt, not "
            f"{t}: raise --resiliency, or lower --decryptors"
        )
    if n < 3 or most < max(given, 0):
        raise UsageError(
            f"--verify_aggregate True cannot withstand {max(given, 0)} corrupt of {n} clients with "
            f"{t} of {k} decryptors (at most {most}): raise --resiliency, or lower --max_corrupt "
            "or --decryptors"
            if n >= 3
            else "--verify_aggregate True needs at least 3 clients: raise --num_peers"
        )
    if given < 0:
        object.__setattr__(args, "max_corrupt", most)
    least = args.max_corrupt + 2
    if args.min_contributors and args.min_contributors < least:
        raise UsageError(
            f"--min_contributors must be at least {least} with --max_corrupt {args.max_corrupt}, "
            f"not {args.min_contributors}"
        )


class OneLineParser(argparse.ArgumentParser):
    """argparse without its multi-line usage message and its exit."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with what argparse found."""
        raise UsageError(message.removeprefix("argument "))


def _reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show the text of a ValueError instead of its own."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="main.py",
        allow_abbrev=False,
        description="Train one model on many clients; the server sees only sums of updates.",
        epilog="Example: mpirun -n 5 -H localhost:5 python main.py --num_peers 4 "
        "--server_address localhost:8080 --robust True --resiliency 0.5. For --role, python "
        "main.py --new_identity DIRECTORY [--name NAME] makes a key and prints its roster line.",
    )
    required_first = sorted(
        dataclasses.fields(Args), key=lambda field: field.default is not dataclasses.MISSING
    )
    for field in required_first:
        text = field.metadata["help"]
        if field.default is dataclasses.MISSING:
            text += " (required)"
        elif "default:" not in text:
            text += f" (default: {field.default})"
        parser.add_argument(
            f"--{field.name}",
            type=_reader(field.metadata["read"]),
            default=argparse.SUPPRESS,
            metavar=_METAVARS.get(field.name) or _METAVARS[getattr(field.type, "__name__", "")],
            help=text,
        )
    return parser


def _refuse_unknown(unknown: Sequence[str]) -> NoReturn:
    names = ["--new_identity", *(f"--{field.name}" for field in dataclasses.fields(Args))]
    close = difflib.get_close_matches(unknown[0].split("=")[0], names, 1, 0.7)
    hint = f"did you mean {close[0]}?" if close else "python main.py --help lists all flags"
    raise UsageError(f"unknown argument {unknown[0]!r}: {hint}")


def parse_args(argv: Sequence[str]) -> Args:
    """Turn the words after main.py into checked flags.

    Raises UsageError with one line that says what to do, and SystemExit(0) after --help.
    """
    values, unknown = _parser().parse_known_args(list(argv))
    given = vars(values)
    # An unknown flag first: a misspelt one is also a missing one.
    if unknown:
        _refuse_unknown(unknown)
    missing = [
        f"--{field.name}"
        for field in dataclasses.fields(Args)
        if field.default is dataclasses.MISSING and field.name not in given
    ]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: python main.py --help explains each flag")
    # Inside Args 0 stands for "the default"; nobody may type it.
    for name in ("decryptors", "min_contributors"):
        if given.get(name) == 0:
            raise UsageError(f"--{name} must be at least 2, not 0")
    if given.get("evaluate_every") == 0:
        raise UsageError("--evaluate_every must be at least 1, not 0")
    if given.get("local_learning_rate") == 0:
        raise UsageError("--local_learning_rate must be above 0, not 0")
    if given.get("max_corrupt", 0) < 0:
        raise UsageError(f"--max_corrupt must be at least 0, not {given['max_corrupt']}")
    check_typed(given)
    return Args(**given)
