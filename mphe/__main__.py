"""The planner's command: `python -m mphe plan --length 199658 --num_peers 8 --threshold 4`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mphe.errors import ParameterError
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import candidates
from mphe.plan.printout import describe


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--length", type=int, default=199658, help="values in an update")
    parser.add_argument("--num_peers", type=int, default=8, help="clients n")
    parser.add_argument("--threshold", type=int, default=4, help="decryptors needed t")
    none = argparse.SUPPRESS
    parser.add_argument(
        "--decryptors", type=int, default=none, help="holders of shares; default: all"
    )
    parser.add_argument("--value_bits", type=int, default=16, help="bits of a value")
    parser.add_argument("--num_iterations", type=int, default=100, help="rounds")
    parser.add_argument("--max_attempts", type=int, default=8, help="decryptions of a round")
    parser.add_argument("--verify_aggregate", action="store_true", help="the server may lie")
    parser.add_argument(
        "--max_corrupt", type=int, default=none, help="clients that may help it; default: the most"
    )
    parser.add_argument(
        "--min_contributors", type=int, default=none, help="updates in a sum; default: see flags.md"
    )
    parser.add_argument("--max_groups", type=int, default=1, help="groups of contributors")
    parser.add_argument("--encryption", choices=("hybrid", "direct"), default="hybrid")


def _parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m mphe", description="Multiparty encryption.")
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser(
        "plan",
        formatter_class=show_defaults,
        description="Print the chosen rings, noise and bytes of a session, then the plans that "
        "were also possible, by their bytes.",
        help="print rings, noise and bytes of a session",
    )
    _add_flags(plan)
    return plan, parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the chosen plan, then the runners-up by their bytes."""
    parser, args = _parse(argv)
    try:
        session = SessionParameters(
            num_clients=args.num_peers,
            threshold=args.threshold,
            length=args.length,
            rounds=args.num_iterations,
            encryption=args.encryption,
            value_bits=args.value_bits,
            decryptors=getattr(args, "decryptors", None),
            max_attempts=args.max_attempts,
            verified=args.verify_aggregate,
            max_corrupt=getattr(args, "max_corrupt", None),
            min_contributors=getattr(args, "min_contributors", None),
            max_groups=args.max_groups,
        )
        plans = candidates(session)
    except ParameterError as error:
        parser.error(str(error))
    try:
        print("\nrunner-up: ".join(map(describe, plans)), flush=True)
    except BrokenPipeError:  # of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
