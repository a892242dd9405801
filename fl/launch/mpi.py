"""Start-up without MPI calls: who am I, does the world fit, what does rank 0 tell the others."""

import contextlib
import dataclasses
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from errno import EADDRINUSE, EADDRNOTAVAIL
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack

from fl.config.configs import Config, PartyConfig
from fl.config.flags import UsageError, is_reference
from fl.config.place import Place

if TYPE_CHECKING:
    from mphe.run import Credentials, Parties

POLL_SECONDS = 0.05
OFFER_BYTES = 1 << 14


@dataclass(frozen=True)
class Offer:
    """What one rank tells all others at start-up; only rank 0 fills in the run's configuration.

    `error` is one line when this rank cannot run, else empty.
    """

    certificate: bytes = b""
    host: str = ""
    pid: int = 0
    error: str = ""
    dataset: str = ""
    notice: str | None = None
    output: str = ""

    def to_bytes(self) -> bytes:
        """Return OFFER_BYTES bytes; no pickle, which a rank that lies could fill with code.

        Raises:
            UsageError: a path or name is too long.
        """
        packed: bytes = msgpack.packb(list(dataclasses.astuple(self)))
        if len(packed) > OFFER_BYTES:
            raise UsageError("the paths on the command line are too long: use shorter ones")
        return packed.ljust(OFFER_BYTES, b"\xc1")  # a byte that msgpack never writes

    @classmethod
    def from_bytes(cls, data: bytes) -> "Offer":
        """Read `to_bytes`; UsageError for anything else."""
        kinds = (bytes, str, int, str, str, str | None, str)
        try:
            fields = msgpack.unpackb(data.rstrip(b"\xc1"))
        except (ValueError, msgpack.exceptions.UnpackException):
            fields = None
        if not (
            isinstance(fields, list)
            and len(fields) == len(kinds)
            and all(map(isinstance, fields, kinds))
        ):
            raise UsageError("a rank speaks another language: start all with the same program")
        return cls(*fields)


@dataclass(frozen=True)
class Launch:
    """What every role knows when it starts; all ranks in their order, server first.

    `certificates` are DER, `processes` are pairs of host name and process id.
    `dataset` is resolved (never auto), `notice` is for rank 0 to show, `output` exists on the
    server's host. `processes` is empty without a launcher. With `own_data` a client trains on
    all of its data set, not on a part.
    """

    index: int
    identity: "Credentials"
    certificates: tuple[bytes, ...]
    processes: tuple[tuple[str, int], ...]
    dataset: str
    notice: str | None
    output: str
    own_data: bool = False

    @property
    def parties(self) -> "Parties":
        """Everybody's certificates by index, and one's own key."""
        from mphe.run import Parties

        return Parties(self.identity, dict(enumerate(self.certificates)))


def mpirun_line(num_peers: int, argv: Sequence[str], mpirun: str = "mpirun") -> str:
    """Return the command that starts these flags with the right number of processes."""
    ranks = num_peers + 1
    return f"{mpirun} -n {ranks} -H localhost:{ranks} python main.py {shlex.join(argv)}"


def check_world(num_clients: int, argv: Sequence[str], size: int | None) -> None:
    """Refuse a number of processes other than clients plus server; None is not checked yet."""
    if size is not None and size != num_clients + 1:
        raise UsageError(
            f"--num_peers {num_clients} needs {num_clients + 1} processes, not {size}: run "
            + mpirun_line(num_clients, argv)
        )


def no_launcher(num_clients: int, argv: Sequence[str]) -> UsageError:
    """Return the error for a start without mpirun."""
    return UsageError(
        "start it with mpirun, one process per client and one for the server: run "
        + mpirun_line(num_clients, argv)
    )


def own_mpirun() -> str:
    """Return the mpirun that belongs to this Python's MPI, as a path if there is one."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else "mpirun"


def check_launcher(
    num_clients: int, argv: Sequence[str], place: Place, mpi_rank: int, mpi_size: int
) -> None:
    """Refuse an MPI that sees another world than the launcher: two MPIs do not mix."""
    if (mpi_rank, mpi_size) != (place.rank, place.size or mpi_size):
        raise UsageError(
            f"the launcher started {place.size or 'several'} processes but MPI sees {mpi_size}: "
            "another MPI's mpirun was used; run " + mpirun_line(num_clients, argv, own_mpirun())
        )
    check_world(num_clients, argv, mpi_size)


def threads_per_process(local_size: int, server: bool = False) -> int:
    """Return how many threads one of `local_size` processes on this host should use.

    The server evaluates with what equal shares leave over.
    """
    cores = os.cpu_count() or 1
    share = cores // max(local_size, 1)
    if server:
        share = cores - max(share, 1) * (local_size - 1)
    # The affinity is narrower where the launcher binds processes to cores.
    return max(1, min(share, len(os.sched_getaffinity(0))))


def prepare(config: Config, rank: int) -> tuple["Credentials | None", Offer]:
    """Do everything that can fail or take long, before MPI starts: waiting in MPI burns a core.

    Never raises: a rank that left now would keep the others waiting, so its error travels in
    the offer.
    """
    try:
        from mphe.run import new_credentials

        name = "server" if rank == 0 else f"client {rank}"
        party = config.party
        kept = party.state_dir and kept_identity(party.state_dir, rank, name, party.resume)
        identity = kept or new_credentials(name)
        offer = Offer(identity.certificate, socket.gethostname(), os.getpid())
        return identity, offer if rank != 0 else _configure(config, offer)
    except Exception as error:
        return None, Offer(error=" ".join(str(error).split()) or type(error).__name__)


def _configure(config: Config, offer: Offer) -> Offer:
    """Decide on rank 0 what all ranks must agree on."""
    from fl.data.load import resolve_dataset

    check_port(config.party)
    check_model(config.learning.model)
    dataset, notice = resolve_dataset(config.data.dataset)
    return replace(offer, dataset=dataset, notice=notice, output=find_output(config))


def check_model(model: str) -> None:
    """Refuse a model that is not there, before anybody waits for TensorFlow; UsageError."""
    from fl.data.user_code import find_function

    if is_reference(model):
        find_function(model, "--model", UsageError)


def check_port(party: PartyConfig) -> None:
    """Refuse an address on which the server cannot listen, while all ranks can still be told.

    Raises UsageError.
    """
    given = f"--server_address {party.server_address}"
    try:
        kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
        family, _, _, _, address = socket.getaddrinfo(party.host, party.port, 0, kind, 0, flags)[0]
    except (OSError, UnicodeError):
        raise UsageError(
            f"{given}: no host is called {party.host!r}: name the one on which rank 0 runs, or its "
            "address"
        ) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == EADDRINUSE:
                raise UsageError(f"{given} is in use: choose another port") from None
            if error.errno == EADDRNOTAVAIL:
                raise UsageError(
                    f"{given} is no address of this host, on which the server runs: name one"
                ) from None


def kept_identity(state_dir: str, rank: int, name: str, resume: bool) -> "Credentials":
    """Return the identity in this rank's state directory, made at the first start; UsageError."""
    from fl.launch import identity as identity_files
    from fl.state.directory import check_fresh, party_directory
    from mphe.run import make_private

    check_fresh(state_dir, rank, resume)
    directory = party_directory(state_dir, rank)
    make_private(directory)
    place = directory / "identity"
    if not place.exists():
        if resume:
            raise UsageError(f"{place} is missing: name the --state_dir of before on every host")
        identity_files.make_identity(place, name)
    return identity_files.read_identity(place)


def find_output(config: Config) -> str:
    """Return the server's directory for results: that of before when a session goes on.

    Raises UsageError when it cannot be used.
    """
    party = config.party
    if not party.state_dir:
        return make_output(party.output)
    from fl.config.same_flags import check_same_flags
    from fl.state.directory import OUTPUT, party_directory
    from mphe.run import StateError, make_private, write_atomically

    directory = party_directory(party.state_dir, 0)
    make_private(directory)
    try:
        if not party.resume:
            output = make_output(party.output)
            write_atomically(directory / OUTPUT, os.fsencode(Path(output).resolve()))
            return output
        kept = os.fsdecode((directory / OUTPUT).read_bytes())
    except OSError as error:
        raise StateError(
            f"cannot use {directory / OUTPUT} ({error.strerror}): choose another --state_dir"
        ) from None
    if party.output and Path(party.output).resolve() != Path(kept):
        raise UsageError(f"--output of this session is {kept}: leave out --output, or name that")
    if not os.access(kept, os.W_OK):
        raise UsageError(
            f"cannot write to {kept}, where the results of this session are: restore it"
        )
    check_same_flags(config.flags, Path(kept))
    return kept


def make_output(wanted: str | None) -> str:
    """Create the directory for results and return its path; UsageError if it cannot be used."""
    path = Path(wanted or time.strftime("runs/%Y-%m-%d-%H%M%S"))
    if wanted and (path / "metrics.jsonl").exists():
        raise UsageError(f"--output {path} already holds results: choose another directory")
    number = 1
    while not wanted and path.exists():
        number += 1
        path = Path(time.strftime("runs/%Y-%m-%d-%H%M%S")).with_suffix(f".{number}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UsageError(f"cannot write to {path}: choose a directory with --output")
    return str(path)


def assemble(rank: int, identity: "Credentials | None", offers: Sequence[Offer]) -> Launch:
    """Make this rank's Launch from all ranks' offers; UsageError if any rank cannot run."""
    from mphe.run import printable

    for other, offer in enumerate(offers):
        if offer.error:
            error = printable(offer.error)
            raise UsageError(error if other == 0 else f"rank {other}: {error}")
    if identity is None:
        raise ValueError("a rank without an identity must offer an error")
    _check_each_has_its_own(offers)
    first = offers[0]
    return Launch(
        index=rank,
        identity=identity,
        certificates=tuple(offer.certificate for offer in offers),
        processes=tuple((offer.host, offer.pid) for offer in offers),
        dataset=first.dataset,
        notice=first.notice,
        output=first.output,
    )


def _check_each_has_its_own(offers: Sequence[Offer]) -> None:
    """Refuse one key at two ranks, which would be one party with two votes; UsageError."""
    from cryptography.x509 import InvalidVersion

    from mphe.run import public_key

    owners: dict[bytes, int] = {}
    for rank, offer in enumerate(offers):
        try:
            key = public_key(offer.certificate)
        except (ValueError, InvalidVersion):
            raise UsageError(f"rank {rank} offers a damaged certificate: start again") from None
        if key in owners:
            raise UsageError(
                f"ranks {owners[key]} and {rank} have the same certificate: in --state_dir the "
                "directory of one is a copy of the other's; move it away"
            )
        owners[key] = rank


def end_stragglers(launch: Launch, seconds: float) -> list[int]:
    """Kill the ranks of this host that outlive the run by `seconds`; return them.

    The launcher waits for every process, and a stopped or hung one would keep it for ever.
    Without a launcher nobody waits.
    """
    if not launch.processes:
        return []
    host = launch.processes[launch.index][0]
    mine = {
        rank: pid
        for rank, (where, pid) in enumerate(launch.processes)
        if where == host and rank != launch.index
    }
    deadline = time.monotonic() + seconds
    while (left := [rank for rank in mine if _runs_this(mine[rank])]) and (
        time.monotonic() < deadline
    ):
        time.sleep(POLL_SECONDS)
    for rank in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(mine[rank], signal.SIGKILL)
    return left


def _runs_this(pid: int) -> bool:
    """Return whether a process is another one of this command, and no zombie."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return bool(command) and command == Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False
