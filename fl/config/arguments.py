"""Command-line flags: one frozen dataclass, parsed strictly, refused in one line."""

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from fl.config.configs import ENCRYPTIONS, OPTIMIZERS, ROLES, UNITS, WEIGHTINGS
from fl.config.flags import (
    DATASETS,
    UsageError,
    address,
    dataset_name,
    flag,
    one_of,
    path,
    real,
    true_or_false,
    whole_number,
)
from fl.config.learning_flags import LearningFlags
from fl.config.privacy_flags import PrivacyFlags
from fl.config.schemes import SCHEMES

_METAVARS = MappingProxyType(
    {
        "server_address": "HOST:PORT",
        "encryption": "|".join(ENCRYPTIONS),
        "aggregation": "|".join(SCHEMES),
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
_METAVARS_OF = MappingProxyType({whole_number: "N", real: "X", true_or_false: "True|False"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(PrivacyFlags, LearningFlags):
    """Every flag of the command line as it was typed, each right on its own; None was left out.

    Only this room knows it: what the flags come to together is a `Config`.
    """

    num_peers: int = flag(whole_number, "clients; start one process more, rank 0 is the server")
    server_address: str = flag(address, "host:port of the server's TCP socket")
    robust: bool = flag(
        true_or_false,
        "True: any t decryptors of n decrypt, see --resiliency; False: all n are needed",
    )
    learning_rate: float = flag(real, "server step on the mean update", 0.1)
    batch_size_per_worker: int = flag(whole_number, "samples per client and round", 256)
    num_iterations: int = flag(whole_number, "rounds", 100)
    resiliency: float = flag(
        real,
        "fraction r of the clients needed to decrypt, 0 < r <= 1: t = ceil(r * n), at least 2; "
        "not used with --robust False; while the key is made more than half of the decryptors must "
        "stay, whatever r is",
        1.0,
    )
    encryption: str = flag(
        one_of(ENCRYPTIONS),
        "hybrid: one-time keys under the threshold key; direct: all under the threshold key",
        "hybrid",
    )
    aggregation: str = flag(
        one_of(SCHEMES),
        "mphe: encrypted; plain: same transport, no encryption, for comparison",
        "mphe",
    )
    value_bits: int = flag(whole_number, "bits of one quantised value, 4 to 24", 16)
    crypto_threads: int = flag(
        whole_number,
        "threads for the blocks of an update, 1 to 64; pays from about a million values on",
        1,
    )
    decryptors: int | None = flag(
        whole_number, "the first k clients hold a share of the key; default: all clients", None
    )
    min_contributors: int | None = flag(
        whole_number,
        "fewest updates in a published sum; default: max(2, min(t + 1, n - 1)) with threshold t, "
        "with --verify_aggregate True max(3, c + 2)",
        None,
    )
    verify_aggregate: bool = flag(
        true_or_false,
        "True: the server may lie; decryptors check what they decrypt, nobody its models; see "
        "SECURITY.md",
        False,
    )
    verify_clients: bool = flag(
        true_or_false,
        "True: clients prove what they add to keys and sums, and the server excludes who cannot, "
        "see SECURITY.md; part of --verify_aggregate True",
        False,
    )
    max_corrupt: int | None = flag(
        whole_number,
        "clients c that may help a lying server, with --verify_aggregate True; default: the most "
        "that 2t > k + c and two honest updates in a sum allow",
        None,
    )
    round_timeout: float = flag(
        real, "most seconds to wait for clients in one step; less once steps were shorter", 60.0
    )
    max_attempts: int = flag(whole_number, "decryption attempts for one round", 8)
    max_failed_rounds: int = flag(
        whole_number, "give up after this many failed rounds in a row", 10
    )
    clip_norm: float = flag(real, "L2 norm to which a client clips its update", 3.0)
    seed: int = flag(whole_number, "seed of data and model; cryptography never uses it", 0)
    dataset: str = flag(
        dataset_name,
        "auto: mnist when at hand, else mnist5k; mnist: Keras's cache or download; mnist5k: 5,000 "
        "real digits, always there; npz:PATH: arrays x_train, y_train, x_test, y_test; "
        "FILE.py:FUNCTION returns these four arrays",
        "auto",
    )
    output: str | None = flag(path, "directory for results; default: runs/<time>", None)
    evaluate_every: int | None = flag(
        whole_number,
        "evaluate the model on the test data after every N-th round and the last, and wait for "
        "it; default: the last, and others beside the rounds, as often as it fits",
        None,
    )
    quiet: bool = flag(true_or_false, "True: show only warnings and the final summary", False)
    tls: bool = flag(
        true_or_false, "encrypt and authenticate connections; False is for benchmarks only", True
    )
    role: str | None = flag(
        one_of(ROLES),
        "run one party without mpirun, with --roster and --identity; default: mpirun decides",
        None,
    )
    roster: str | None = flag(
        path, "JSON file with the certificates of all parties; default: none", None
    )
    identity: str | None = flag(path, "directory made by --new_identity; default: none", None)
    state_dir: str | None = flag(
        path,
        "directory in which each party keeps what it needs to go on after its process died; "
        "default: none",
        None,
    )
    resume: bool = flag(
        true_or_false, "True: go on with the session in --state_dir after the server died", False
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
            metavar=_METAVARS.get(field.name) or _METAVARS_OF[field.metadata["read"]],
            help=text,
        )
    return parser


def _refuse_unknown(unknown: Sequence[str]) -> NoReturn:
    names = ["--new_identity", *(f"--{field.name}" for field in dataclasses.fields(Args))]
    close = difflib.get_close_matches(unknown[0].split("=")[0], names, 1, 0.7)
    hint = f"did you mean {close[0]}?" if close else "python main.py --help lists all flags"
    raise UsageError(f"unknown argument {unknown[0]!r}: {hint}")


def read_flags(argv: Sequence[str]) -> Args:
    """Turn the words after main.py into flags, each right on its own.

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
    return Args(**given)
