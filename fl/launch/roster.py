"""Parties without a common launcher: the roster, and the Launch that it makes."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.x509 import InvalidVersion

from fl.config.configs import Config, PartyConfig
from fl.config.flags import UsageError, is_reference
from fl.config.place import Place
from fl.launch.identity import fit, read_file, read_identity
from fl.launch.mpi import Launch, check_model, check_port, find_output
from fl.state.directory import check_fresh
from mphe import SERVER
from mphe.run import Credentials, public_key

MAX_ROSTER = 8 << 20  # as many clients as the parameters allow need less than half of it
_SHAPE = '{"server": LINE, "clients": [LINE, LINE, ...]} with the lines that --new_identity prints'


@dataclass(frozen=True)
class RosterFile:
    """Names and certificates (DER) of all parties, server first: the position is the index."""

    names: tuple[str, ...]
    certificates: tuple[bytes, ...]


def read_roster(path: Path, num_peers: int) -> RosterFile:
    """Read the roster file: {"server": {...}, "clients": [{...}, ...]}, an index a position.

    Raises UsageError with one line that says what is wrong with it and what to do.
    """
    content = _parse(path)
    if not isinstance(content, dict) or set(content) != {"server", "clients"}:
        raise UsageError(f"{path} is no roster: write {_SHAPE}")
    clients = content["clients"]
    if not isinstance(clients, list):
        raise UsageError(f"{path} has no list of clients: write {_SHAPE}")
    if len(clients) != num_peers:
        raise UsageError(
            f"{path} lists {len(clients)} clients but --num_peers is {num_peers}: "
            "make the two agree, for all parties"
        )
    names, certificates = [], []
    owners: dict[bytes, str] = {}
    for index, entry in enumerate([content["server"], *clients]):
        who = "the server" if index == SERVER else f"client {index}"
        name, certificate, key = _party(path, who, entry)
        # By key, not by certificate: one key in two certificates is one party with two votes.
        if key in owners:
            raise UsageError(
                f"{path} gives {owners[key]} and {who} the same certificate: each party makes its "
                "own with --new_identity"
            )
        owners[key] = who
        names.append(name)
        certificates.append(certificate)
    return RosterFile(tuple(names), tuple(certificates))


def _parse(path: Path) -> Any:
    """Return the JSON of a file; UsageError when it is none."""
    text = read_file(path, MAX_ROSTER, f"write {_SHAPE}")
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not JSON ({reason}): write {_SHAPE}") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; ValueError for a repeated key, of which json would keep the last."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object names a key twice")
    return made


def _party(path: Path, who: str, entry: Any) -> tuple[str, bytes, bytes]:
    """Return name, certificate and public key of one entry."""
    if (
        not isinstance(entry, dict)
        or set(entry) != {"name", "certificate"}
        or not all(isinstance(text, str) for text in entry.values())
        or not fit(entry["name"])
    ):
        raise UsageError(
            f"{path}: {who} is not a line that --new_identity prints: ask that party for it"
        )
    try:
        certificate = base64.b64decode(entry["certificate"], validate=True)
        return entry["name"], certificate, public_key(certificate)
    except (ValueError, InvalidVersion):
        raise UsageError(
            f"{path}: the certificate of {who} is damaged or not one of --new_identity: ask that "
            "party for its line again"
        ) from None


def check_flags(config: Config, place: Place | None) -> None:
    """Refuse flags that do not go together in a start without MPI."""
    party = config.party
    flags = {"--role": party.role, "--roster": party.roster, "--identity": party.identity}
    given = [flag for flag, text in flags.items() if text]
    missing = [flag for flag, text in flags.items() if not text]
    if missing:
        raise UsageError(
            f"{', '.join(given)} without {', '.join(missing)}: a start without mpirun needs all "
            "three"
        )
    if place is not None:
        raise UsageError(
            "--role starts one party without MPI: run it without mpirun or srun, or leave out "
            f"{', '.join(flags)}"
        )
    if not party.tls:
        raise UsageError(
            "--role needs --tls True: without certificates anyone could claim to be any client"
        )
    if config.data.dataset == "auto":
        raise UsageError(
            "--dataset auto may choose differently for each party: name the dataset, mnist, "
            "mnist5k, npz:PATH or FILE.py:FUNCTION"
        )


def find_index(party: PartyConfig, identity: Credentials, roster: RosterFile) -> int:
    """Return this party's index; UsageError unless the roster has it in its role."""
    if identity.certificate not in roster.certificates:
        raise UsageError(
            f"the certificate in {party.identity} is not on {party.roster}: name the identity that "
            "is, or have its line added to the roster of all parties"
        )
    index = roster.certificates.index(identity.certificate)
    listed = "server" if index == SERVER else "client"
    if listed != party.role:
        raise UsageError(
            f"{party.roster} lists the certificate in {party.identity} as a {listed}: use --role "
            f"{listed}, or name another identity"
        )
    return index


def join(config: Config, place: Place | None) -> tuple[Launch, str]:
    """Make this party's Launch from its files; return it with a line that says who it is.

    Raises UsageError when flags, files, data or the server's port do not allow it.
    """
    check_flags(config, place)
    party = config.party
    identity = read_identity(Path(party.identity or ""))
    roster = read_roster(Path(party.roster or ""), party.num_clients)
    index = find_index(party, identity, roster)
    is_server = index == SERVER
    if is_server:
        check_port(party)
        if party.state_dir:
            check_fresh(party.state_dir, index, party.resume)
    check_model(config.learning.model)
    dataset, notice = _dataset(config.data.dataset)
    launch = Launch(
        index=index,
        identity=identity,
        certificates=roster.certificates,
        processes=(),
        dataset=dataset,
        notice=notice,
        output=find_output(config) if is_server else "",
        own_data=not is_server and (dataset.startswith("npz:") or is_reference(dataset)),
    )
    return launch, _greeting(party, index, roster)


def _dataset(name: str) -> tuple[str, str | None]:
    """Resolve --dataset before anyone waits for this party."""
    # Here, because NumPy takes long to load and a wrong flag should not have to wait for it.
    from fl.data.load import DatasetError, resolve_dataset

    try:
        return resolve_dataset(name)
    except DatasetError as error:
        raise UsageError(f"--dataset: {error}") from None


def _greeting(party: PartyConfig, index: int, roster: RosterFile) -> str:
    if index == SERVER:
        return f"server on {party.server_address}, waits for clients 1 to {party.num_clients}"
    return (
        f"client {index} of {party.num_clients} ({roster.names[index]}), server at "
        f"{party.server_address} ({roster.names[SERVER]})"
    )
