"""Runs main.py with the small model; MPHE_TEST_FAULTS says what happens to which rank.

MPHE_TEST_CULPRIT is a rank that spoils every sum it is in.
"""

import json
import os
import sys

import fl.run.server
import main
from tests.end_to_end import faults, small
from tests.patience import scaled


def install() -> None:
    strikes = json.loads(os.environ.get("MPHE_TEST_FAULTS", "{}"))
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "")
    fl.run.server.FLUSH_SECONDS = scaled(1.0)  # type: ignore[attr-defined]
    main.GRACE_SECONDS = scaled(1.0)
    small.install(0.0 if rank in strikes else 0.1)
    if rank == os.environ.get("MPHE_TEST_CULPRIT"):
        faults.spoil_sums()
    faults.install(faults.Fault(**strikes[rank]) if rank in strikes else None)


if __name__ == "__main__":
    install()
    main.leave(main.main(sys.argv[1:]))
