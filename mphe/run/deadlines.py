"""How long the server waits in a step of the protocol, from how long its quickest half takes."""

from collections import defaultdict, deque
from collections.abc import Collection
from statistics import median_low

FACTOR = 4.0
SLACK_SECONDS = 5.0
LEAST, RECENT = 2, 9


class Deadlines:
    """What is known of each kind of step; it knows no clock.

    The quickest half of those that are expected decides, in the step itself: once they have
    answered, the others have FACTOR times as long, and some slack. Who answers just in time can not
    stretch that, and who is FACTOR times as slow as the quick half still fits. Until then the lower
    median of recent steps limits the wait. When a deadline passes before half have answered, all
    may have become slow: what was known is forgotten, and the next steps may take the whole limit.
    """

    def __init__(self, patient: Collection[object] = ()) -> None:
        """Learn nothing of the kinds in `patient`: such a wait may always take all of its limit."""
        self._patient = patient
        self._recent: dict[object, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def knows(self, kind: object) -> bool:
        """Return whether there were steps of this kind; the first may take as long as they may."""
        return len(self._recent[kind]) >= LEAST and kind not in self._patient

    def seconds(self, kind: object, limit: float) -> float:
        """Return how long to wait in a step of this kind for the quickest half, at most `limit`."""
        return following(median_low(self._recent[kind]), limit) if self.knows(kind) else limit

    def took(self, kind: object, seconds: float) -> None:
        """Note when half had answered in a step of this kind."""
        self._recent[kind].append(seconds)

    def forget(self, kind: object) -> None:
        """Begin anew with a kind of steps."""
        self._recent[kind].clear()


def following(seconds: float, limit: float) -> float:
    """Return how long to wait for all where half need so many seconds."""
    return min(limit, FACTOR * seconds + SLACK_SECONDS)


class Wait:
    """One wait for answers.

    Attributes:
        step: what is waited for.
        patience: seconds that it may last by now.
    """

    def __init__(
        self, deadlines: Deadlines, step: tuple[object, ...], limit: float, now: float
    ) -> None:
        """Begin to wait, at most `limit` seconds from now."""
        self.step = step
        self.patience = deadlines.seconds(step[0], limit)
        self._deadlines = deadlines
        self._limit = limit
        self._began = now
        self._answered = 0
        self._half: float | None = None

    @property
    def ends(self) -> float:
        """When time is up."""
        return self._began + self.patience

    def answered(self, missing: int, now: float) -> None:
        """Note an answer that was waited for, and how many are still missing.

        Who is lost has not answered, and is not missing either.
        """
        self._answered += 1
        if self._half is None and self._answered >= missing:
            self._half = now - self._began
            if self._deadlines.knows(self.step[0]):
                self.patience = following(self._half, self._limit)

    def ended(self, by_loss: bool) -> None:
        """Note the end; that somebody is lost says nothing about how long answers take."""
        if self._half is not None:
            self._deadlines.took(self.step[0], self._half)
        elif not by_loss:
            self._deadlines.forget(self.step[0])
