"""How often something may happen: so many times at once, and so many times a second after that."""


class Pace:
    """A bucket that fills with time; it knows no clock."""

    def __init__(self, burst: float, per_second: float) -> None:
        """Start full: `burst` times at once, then `per_second` times a second."""
        self._burst = float(burst)
        self._per_second = per_second
        self._left = float(burst)
        self._then = 0.0

    def take(self, now: float) -> bool:
        """Return whether it may happen at this time (seconds), and count it if so."""
        if self.wait(now) > 0:
            return False
        self._left -= 1
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until it may happen, 0 if it may now."""
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second)
        self._then = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_second

    def is_rested(self, now: float) -> bool:
        """Return whether nothing has happened for so long that all of the burst is left."""
        self.wait(now)
        return self._left >= self._burst
