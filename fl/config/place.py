"""Where a launcher started this process, read from the environment before any MPI call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Launchers name these differently; the first rank that is set wins. Inside a Slurm job
# the SLURM ones are set too, so they come last.
_RANK_AND_SIZE = (
    ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
    ("PMIX_RANK", ("SLURM_STEP_NUM_TASKS",)),
    ("PMI_RANK", ("PMI_SIZE", "SLURM_STEP_NUM_TASKS")),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
)
_LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_LOCAL_SIZE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")


@dataclass(frozen=True)
class Place:
    """What the launcher's environment says about this process, before any MPI call.

    `size` is None where the launcher does not tell; `local_rank` and `local_size` count the
    processes on this host.
    """

    rank: int
    size: int | None
    local_rank: int
    local_size: int


def _number(environ: Mapping[str, str], names: Sequence[str]) -> int | None:
    """Return the first of these variables that holds a whole number."""
    for name in names:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def find_place(environ: Mapping[str, str]) -> Place | None:
    """Read this process's place from the launcher's environment; None without a launcher."""
    for rank_name, size_names in _RANK_AND_SIZE:
        rank = _number(environ, [rank_name])
        if rank is None:
            continue
        size = _number(environ, size_names)
        local_rank = _number(environ, _LOCAL_RANK)
        local_size = _number(environ, _LOCAL_SIZE)
        return Place(
            rank,
            size,
            rank if local_rank is None else local_rank,
            local_size or size or 1,
        )
    return None
