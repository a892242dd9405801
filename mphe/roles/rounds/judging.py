"""What else makes a sum implausible, beside its range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Judge = Callable[[NDArray[np.int64], int], str]
"""Says in one line what is implausible in a total (length,) of so many contributors, or nothing."""


def satisfied(total: NDArray[np.int64], contributors: int) -> str:
    """Find nothing implausible: the judge of whoever knows nothing of the values."""
    return ""
