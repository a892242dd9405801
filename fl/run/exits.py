"""Which error ends a server or a client with which exit code, and in what words.

Under a launcher the job's code is the server's: a client leaves with 0 as long as the server
lives (main.py says why).
"""

import errno
from collections.abc import Callable
from typing import NamedTuple

from fl.config.exits import EXIT_FAILED, EXIT_USAGE, Rule, find
from fl.learning.private_learner import BudgetSpent
from fl.run.stopping import Stopped
from mphe import EncodingError, ProtocolError, SetupFailed
from mphe.run import AddressError, ServerGone, StateError, Unreachable, WrongServer

_FULL = (errno.ENOSPC, errno.EDQUOT)


AT_THE_START = (Rule(StateError, EXIT_USAGE),)
"""What every process of a job may find before its role begins; the first one says it for all."""
OF_A_SERVER = (
    *AT_THE_START,
    Rule(AddressError, EXIT_USAGE),
    Rule(SetupFailed, EXIT_FAILED, "; start again with all clients"),
)
OF_A_CLIENT = (
    *AT_THE_START,
    Rule(BudgetSpent, 0),
    Rule(ServerGone, EXIT_FAILED, asks=True),
    Rule(Unreachable, EXIT_FAILED, asks=True),
    Rule(WrongServer, EXIT_FAILED, asks=True),
    Rule(ProtocolError, EXIT_FAILED, asks=True),
    Rule(EncodingError, EXIT_FAILED, asks=True),
)


class Ending(NamedTuple):
    """How a party leaves: its exit code, and one line for the terminal."""

    code: int
    line: str


def end_of_server(error: BaseException, output: str) -> Ending | None:
    """Return how the server leaves after an error; None for one that nobody expected."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return Ending(
            EXIT_FAILED,
            f"no space left to write to {output}; free some and start again, or choose another "
            "disk with --output",
        )
    rule = find(error, OF_A_SERVER)
    return Ending(rule.code, f"{error}{rule.cure}") if rule else None


def end_of_client(
    error: BaseException,
    launched: bool,
    state_dir: str | None,
    server_lives: Callable[[], bool],
) -> Ending | None:
    """Return how a client leaves after an error; None for one that nobody expected.

    Args:
        error: what ended it.
        launched: whether a launcher started it, which is told by the server how the job went.
        state_dir: what it keeps its state in.
        server_lives: asks whether anything still listens at the server's address.
    """
    if isinstance(error, Stopped):
        line = f"{error}; start it again to take part again"
        return Ending(0, "") if launched else Ending(error.code, line)
    if isinstance(error, OSError) and find(error, OF_A_CLIENT) is None:
        if not state_dir:
            return None
        line = f"cannot write to --state_dir {state_dir} ({error.strerror}): make room in it"
        return Ending(0 if launched else EXIT_FAILED, line)
    rule = find(error, OF_A_CLIENT)
    if rule is None:
        return None
    left_to_server = launched and (not rule.asks or server_lives())
    return Ending(0 if left_to_server else rule.code, f"{error}{rule.cure}")
