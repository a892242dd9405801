"""How much a client may do beyond what it is asked for, and how long it is kept out for more."""

from collections import Counter

from mphe.net.pace import Pace

SPARE_MESSAGES = 32
"""Messages of a client in a round that answer nothing: late ones, returns, early pledges."""
ARRIVALS_AT_ONCE, ARRIVALS_PER_SECOND = 8, 0.5
"""Connections of a client; one that has a bad link makes a new one every few seconds."""
LONGEST_STORM = 8.0
"""Seconds; below what clients take to reach the server again, so an honest one gets in."""
LONGEST_BREACH = 64.0
LINES_AT_ONCE, LINES_PER_SECOND = 8, 1 / 60
"""Warnings about a client."""


class Conduct:
    """What each client has done; the clock is the caller's."""

    def __init__(self) -> None:
        self._round = 0
        self._spare: Counter[int] = Counter()
        self._breaches: Counter[int] = Counter()
        self._storms: Counter[int] = Counter()
        self._arrivals: dict[int, Pace] = {}
        self._lines: dict[int, Pace] = {}
        self._unsaid: Counter[int] = Counter()

    def is_too_much(self, client: int, round: int, most: int) -> bool:
        """Count a message that nobody waited for; return whether there are too many of them."""
        if round != self._round:
            self._round = round
            self._spare.clear()
        self._spare[client] += 1
        return self._spare[client] > most

    def breached(self, client: int) -> float:
        """Count a breach of the protocol; return how many seconds the client is kept out."""
        self._breaches[client] += 1
        return _doubling(self._breaches[client], LONGEST_BREACH)

    def arrived(self, client: int, now: float) -> float:
        """Count a connection; return how many seconds the client is kept out, 0 if it may stay."""
        pace = self._arrivals.setdefault(client, Pace(ARRIVALS_AT_ONCE, ARRIVALS_PER_SECOND))
        if pace.is_rested(now):
            self._storms[client] = 0
        if pace.take(now):
            return 0.0
        self._storms[client] += 1
        return _doubling(self._storms[client], LONGEST_STORM)

    def line(self, client: int, text: str, now: float) -> str | None:
        """Return a warning about a client; None when there were too many to say this one."""
        pace = self._lines.setdefault(client, Pace(LINES_AT_ONCE, LINES_PER_SECOND))
        if not pace.take(now):
            self._unsaid[client] += 1
            return None
        unsaid = self._unsaid.pop(client, 0)
        return f"{text} (and {unsaid:,} warnings before)" if unsaid else text


def _doubling(times: int, longest: float) -> float:
    return min(longest, 2.0 ** min(times - 1, 30))
