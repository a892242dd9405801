"""How much of its privacy budget a party has spent, kept where a state directory is set."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from fl.report.metrics import INTERRUPTED, RoundRecord
from fl.state.directory import PRIVACY
from mphe.run import StateError, Vault

# What the promise depends on; the rest of the session is bound by the other files.
_BINDING = (
    "dp_epsilon",
    "dp_delta",
    "dp_unit",
    "dp_colluding",
    "dp_noise_multiplier",
    "dp_sampling_rate",
    "clip_norm",
    "batch_size_per_worker",
    "partition",
    "seed",
    "dataset",
    "local_steps",
)


class Spending:
    """Counts the sums that a party's data may have gone into.

    Attributes:
        rounds: so far.
    """

    def __init__(
        self,
        flags: Mapping[str, object] = MappingProxyType({}),
        vault: Vault | None = None,
        goes_on: bool = False,
    ) -> None:
        """Start at 0, or where the process before stopped.

        Args:
            flags: all of this process, by name; none without differential privacy.
            vault: keeps the count; without one it ends with the process.
            goes_on: whether the session in the vault goes on.

        Raises:
            StateError: the session began with other flags, or its count is lost.
        """
        self._flags = {name: flags[name] for name in _BINDING} if flags.get("dp_epsilon") else {}
        self._vault = vault
        self.rounds = 0
        if vault is None:
            return
        text = vault.read(PRIVACY)
        kept: dict[str, Any] = {"flags": {}, "rounds": 0} if text is None else json.loads(text)
        if goes_on or kept["rounds"]:  # a client without a share is not told that it goes on
            self._check(kept["flags"])
            self.rounds = int(kept["rounds"])
        elif self._flags or text is not None:  # of a session that never began
            self._write()

    def add(self) -> None:
        """Count one more, on the disk first; OSError when it cannot be written."""
        self.rounds += 1
        if self._vault is not None:
            self._write()

    def _write(self) -> None:
        if self._vault is not None:
            text = json.dumps({"flags": self._flags, "rounds": self.rounds})
            self._vault.write(PRIVACY, text.encode())

    def _check(self, kept: dict[str, Any]) -> None:
        """Refuse to go on with other flags than those that were kept; StateError."""
        for name in _BINDING:
            before, now = kept.get(name), self._flags.get(name)
            if before != now:
                raise StateError(
                    f"this session was started with {_words(name, before)}, not "
                    f"{_words(name, now)}: its privacy holds with the flags of before only"
                )


def _words(name: str, value: Any) -> str:
    """Return a flag as it would be typed; what is missing was not differentially private."""
    return "no --dp_epsilon" if value is None else f"--{name} {value}"


def charged(records: Iterable[RoundRecord]) -> int:
    """Return how many rounds a curious server may have seen the sum of.

    Once decryption has begun it may know the sum, although the round was given up afterwards. A
    round that was lost with the server may have come as far.
    """
    return sum(record.attempts > 0 or record.abandoned == INTERRUPTED for record in records)
