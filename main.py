"""Entry point: flags, role from rank, exit codes. The only importer of mpi4py.

Exit codes of the job: 0 finished, 1 failed, 2 wrong usage or environment. They are the
server's. A client that cannot go on while the server lives leaves with 0, because prterun
counts a process that exits with another code twice: it then ends the job one process early,
which cuts off the server's last words (Open MPI 5.0.11; a killed process is counted once).
Without a launcher (--role) every process has its own exit code, and such a client leaves with 1.
"""

import contextlib
import ctypes
import os
import sys
import threading
import traceback
from collections.abc import Sequence

from fl.config.configs import Config
from fl.config.exits import EVERYWHERE, EXIT_FAILED, EXIT_USAGE, Rule, find
from fl.config.flags import UsageError
from fl.config.place import Place, find_place
from fl.config.resolve import parse_args
from fl.data.user_code import UserError
from fl.launch.mpi import (
    OFFER_BYTES,
    Launch,
    Offer,
    assemble,
    check_launcher,
    check_world,
    end_stragglers,
    no_launcher,
    own_mpirun,
    prepare,
    threads_per_process,
)

STARTUP_SECONDS = 120.0
GRACE_SECONDS = 10.0
STOPPED_GRACE_SECONDS = 1.5


def say(line: str) -> None:
    """Print one line to stderr, all at once, so that lines of several ranks stay whole."""
    sys.stderr.write(f"main.py: {line}\n")
    sys.stderr.flush()


def parse(argv: Sequence[str], first: bool) -> Config:
    """Parse the flags; of several processes only the first prints --help."""
    with open(os.devnull, "w") as nowhere:
        target = sys.stdout if first else nowhere
        with contextlib.redirect_stdout(target):
            return parse_args(argv)


def leave(code: int) -> None:
    """End now: no thread, exit handler or library of this process may delay or change it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class NoMPI(UsageError):
    """MPI is missing or broken on this host, perhaps on this host alone."""


def give_up(rank: int) -> None:
    """End a start-up in which some rank never arrived."""
    if rank == 0:
        say("a process ended before all had started: look above for its error, then start again")
    leave(1)


def exchange(offer: Offer, place: Place) -> tuple[int, list[Offer]]:
    """Give all ranks each other's offers; return this rank and the offers in rank order.

    MPI is up only within this function. Raises NoMPI when it cannot be loaded.
    """
    # A rank that dies in here leaves the others waiting for ever: the launcher is told to
    # keep a job alive when a process is killed.
    seconds = STARTUP_SECONDS if place.rank == 0 else STARTUP_SECONDS + 5  # rank 0 explains first
    watchdog = threading.Timer(seconds, give_up, [place.rank])
    watchdog.daemon = True
    watchdog.start()
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = mpi4py.rc.threads = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise NoMPI(f"no MPI library: run make install ({reason})") from error
    # Through ctypes, which lets the watchdog run meanwhile; mpi4py would hold the lock.
    if ctypes.CDLL(MPI.__file__).MPI_Init(None, None) != MPI.SUCCESS:
        raise NoMPI(f"MPI does not start: use {own_mpirun()} of this Python's environment")
    rank = MPI.COMM_WORLD.Get_rank()
    gathered = bytearray(OFFER_BYTES * MPI.COMM_WORLD.Get_size())
    MPI.COMM_WORLD.Allgather([offer.to_bytes(), MPI.BYTE], [gathered, MPI.BYTE])
    MPI.Finalize()
    starts = range(0, len(gathered), OFFER_BYTES)
    offers = [Offer.from_bytes(bytes(gathered[start : start + OFFER_BYTES])) for start in starts]
    watchdog.cancel()
    return rank, offers


def start(config: Config, argv: Sequence[str], place: Place) -> Launch:
    """Bring all ranks to the same configuration; UsageError when they cannot run."""
    clients = config.party.num_clients
    check_world(clients, argv, place.size)
    identity, offer = prepare(config, place.rank)
    rank, offers = exchange(offer, place)
    check_launcher(clients, argv, place, rank, len(offers))
    return assemble(rank, identity, offers)


def show_identity(argv: Sequence[str], place: Place | None) -> int:
    """Make an identity, print its roster line and say what to do with it; return 0."""
    from fl.launch import identity

    line, directory = identity.identity_command(argv, place)
    print(line, flush=True)
    say(
        "send the line above to whoever writes the roster, so that nobody can change it on its "
        f"way; {directory}/{identity.KEY_FILE} is secret and stays here"
    )
    return 0


def play_alone(config: Config, place: Place | None) -> int:
    """Run one party that no launcher started, from its roster; return the exit code."""
    from fl.launch import roster

    launch, greeting = roster.join(config, place)
    if not config.party.quiet:
        say(greeting)
    code = play(config, launch, 1)
    if launch.index != 0 and code == 0:
        say("the server ended the run")
    return code


def play(config: Config, launch: Launch, local_size: int) -> int:
    """Run this rank's role to its end; return the exit code."""
    from fl.model.trainer import configure_tensorflow

    configure_tensorflow(threads_per_process(local_size, launch.index == 0))
    if launch.index == 0 or not launch.processes:
        for line in (*config.warnings, *filter(None, [launch.notice])):
            say(f"note: {line}")
    if launch.index == 0:
        from fl.run import server

        code = server.run(config, launch)
        grace = GRACE_SECONDS if code in (0, EXIT_FAILED) else STOPPED_GRACE_SECONDS
        for rank in end_stragglers(launch, grace):
            if code != EXIT_USAGE:  # else it waited for a server that never was there
                say(f"rank {rank} still ran {grace:g} s after the end and was killed")
        return code
    from fl.run import client

    return client.run(config, launch, launch.index)


def _rule_of_start(error: BaseException) -> Rule | None:
    """Return the rule for what only a started party finds; here, since the import loads NumPy."""
    from fl.run.exits import AT_THE_START

    return find(error, AT_THE_START)


def report(error: BaseException, place: Place | None) -> int:
    """Print what went wrong in one line, on one rank; return this process's exit code.

    What is wrong with the user's own files is the same for all ranks of a host.
    """
    first = place is None or place.rank == 0
    rule = find(error, EVERYWHERE) or _rule_of_start(error)
    if rule is not None:
        # Every rank knows; the first one speaks. MPI or a file can be missing on one host alone.
        of_host = isinstance(error, NoMPI | UserError)
        if first or (of_host and place is not None and place.local_rank == 0):
            who = "" if first or isinstance(error, NoMPI) or not place else f"rank {place.rank}: "
            say(f"{who}{str(error) or rule.cure}")
        return rule.code if first else 0
    if os.environ.get("MPHE_DEBUG") == "1":
        traceback.print_exception(error)
    who = f"rank {place.rank}: " if place else ""
    say(f"{who}{type(error).__name__}: {' '.join(str(error).split())}")
    return EXIT_FAILED if first else 0


def main(argv: Sequence[str]) -> int:
    """Run one process of the job; return its exit code."""
    place = find_place(os.environ)
    try:
        if any(word.partition("=")[0] == "--new_identity" for word in argv):
            return show_identity(argv, place)
        config = parse(argv, place is None or place.rank == 0)
        party = config.party
        if party.role or party.roster or party.identity:
            return play_alone(config, place)
        if place is None:
            raise no_launcher(party.num_clients, argv)
        return play(config, start(config, argv, place), place.local_size)
    except SystemExit:  # after --help
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return report(error, place)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
