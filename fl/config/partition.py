"""How a data set is split between the clients."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Partition:
    """How a data set is split: `kind` is iid, dirichlet (by `alpha`) or shards (`shards` each)."""

    kind: str
    alpha: float = 0.0
    shards: int = 0

    @classmethod
    def parse(cls, text: str) -> "Partition":
        """Read iid, dirichlet:ALPHA or shards:K; ValueError otherwise."""
        if text == "iid":
            return cls("iid")
        kind, _, number = text.partition(":")
        if kind == "dirichlet":
            try:
                alpha = float(number)
            except ValueError:
                alpha = math.nan
            if 1e-3 <= alpha <= 1e6:
                return cls("dirichlet", alpha=alpha)
        if kind == "shards" and re.fullmatch(r"[0-9]{1,6}", number) and int(number) >= 1:
            return cls("shards", shards=int(number))
        raise ValueError(
            "write iid, dirichlet:ALPHA with 0.001 <= ALPHA <= 1000000 or shards:K with a whole K "
            f"of at least 1, not {text!r}"
        )

    def __str__(self) -> str:
        number = {"iid": "", "dirichlet": f":{self.alpha:g}", "shards": f":{self.shards}"}
        return self.kind + number[self.kind]
