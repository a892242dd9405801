"""How long the server waits in a step of the protocol, from how long such steps have taken."""

from collections import defaultdict, deque
from collections.abc import Collection
from statistics import median_low

FACTOR = 3.0
SLACK_SECONDS = 5.0
LEAST, RECENT = 2, 9


class Deadlines:
    """Deadlines that follow the observed durations of each kind of step; it knows no clock.

    The lower median of recent durations decides, so one straggler does not lengthen the wait for
    the next. A step that ended at its deadline counts as long as it lasted: when most do, the
    deadline grows, threefold at a time, until everybody fits again or the limit is reached.
    """

    def __init__(self, patient: Collection[object] = ()) -> None:
        """Learn nothing of the kinds in `patient`: such a wait may always take all of its limit."""
        self._patient = patient
        self._recent: dict[object, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def seconds(self, kind: object, limit: float) -> float:
        """Return how long to wait in a step of this kind, at most `limit`.

        The first steps of a kind may take all of the limit.
        """
        recent = self._recent[kind]
        if len(recent) < LEAST or kind in self._patient:
            return limit
        return min(limit, FACTOR * median_low(recent) + SLACK_SECONDS)

    def took(self, kind: object, seconds: float) -> None:
        """Note that a step of this kind ended, by an answer or by its deadline."""
        self._recent[kind].append(seconds)
