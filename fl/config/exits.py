"""Exit codes, and the errors that every process of a job finds out for itself.

What else ends a server or a client is in fl/run/exits.py.
"""

from collections.abc import Sequence
from signal import SIGINT
from typing import NamedTuple

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128
"""Plus the signal's number, as shells have it."""


class Refused(Exception):
    """What this party was given cannot work; the message is one line that says what to do."""


class Rule(NamedTuple):
    """One kind of error: its exit code, and what to add to its text.

    `asks` is for a client: whether its code depends on whether the server still lives.
    """

    error: type[BaseException]
    code: int
    cure: str = ""
    asks: bool = False


EVERYWHERE = (
    Rule(Refused, EXIT_USAGE),
    Rule(KeyboardInterrupt, EXIT_SIGNAL + SIGINT, "interrupted"),
)
"""The first process of a job says it for all."""


def find(error: BaseException, rules: Sequence[Rule]) -> Rule | None:
    """Return the rule for an error; None for one that nobody expected."""
    return next((rule for rule in rules if isinstance(error, rule.error)), None)
