"""`python -m mphe.parameters`, the old spelling of `python -m mphe plan`."""

from __future__ import annotations

import sys

from mphe.__main__ import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
