"""What an application says of a sum before it is used."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Judge = Callable[[NDArray[np.int64], int], str]
"""(exact total (length,), number of its contributors) → why it is implausible, one line, or ""."""
