"""The learning rate over the rounds."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A factor on the learning rate: `kind` is constant, cosine or step.

    With step the factor is multiplied by `decay` every `every` rounds.
    """

    kind: str
    every: int = 0
    decay: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read constant, cosine or step:N:F; ValueError otherwise."""
        if text in ("constant", "cosine"):
            return cls(text)
        found = re.fullmatch(r"step:([0-9]{1,7}):([0-9.]{1,12})", text)
        try:
            every, decay = (int(found[1]), float(found[2])) if found else (0, 0.0)
        except ValueError:
            every, decay = 0, 0.0
        if every < 1 or not 0 < decay <= 1:
            raise ValueError(
                "write constant, cosine or step:N:F with a whole N of at least 1 and 0 < F <= 1, "
                f"such as step:30:0.5, not {text!r}"
            )
        return cls("step", every, decay)

    def __str__(self) -> str:
        return self.kind if self.kind != "step" else f"step:{self.every}:{self.decay:g}"

    def factor(self, round: int, rounds: int) -> float:
        """Return the factor of a round, 1 <= round <= rounds; above 0."""
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (round - 1) / rounds))
        if self.kind == "step":
            return self.decay ** ((round - 1) // self.every)
        return 1.0
