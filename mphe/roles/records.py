"""What a party is between two messages, as records that the codec packs and reads strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter

from mphe.errors import EncodingError, ParameterError
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan
from mphe.roles import keyfile
from mphe.roles.identity import Roster
from mphe.roles.rounds.contributor import Progress
from mphe.roles.rounds.proceedings import AggregatorRecord
from mphe.roles.setup.client import Committed, Joined, Keyed, New, Revealed, Stage
from mphe.roles.setup.server import SetupRecord
from mphe.roles.step import Mail
from mphe.wire import codec

STAGES: tuple[type[New] | type[Joined] | type[Committed] | type[Revealed], ...] = (
    New,
    Joined,
    Committed,
    Revealed,
)
KEYED = len(STAGES)


@dataclass(frozen=True)
class Letter:
    """A message of the last step and its receivers, in their order."""

    receivers: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class KeyedRecord:
    """The stage in which a client holds keys."""

    opened: bool
    keys: bytes


@dataclass(frozen=True)
class ClientRecord:
    """A client; secret. Empty bytes and tuples stand for what it does not have.

    Attributes:
        parameters: of the session, as JSON.
        roster: the public keys of clients 1..n, one behind the other.
        index: of the client.
        stage: number of the set-up's stage.
        content: the stage itself.
        memory: of the decryptor.
        progress: of the contributor, one or none.
        contribution: to the round under way.
        received: digest of the last message.
        outbox: mail of the last step.
    """

    parameters: bytes
    roster: bytes
    index: int
    stage: int
    content: bytes
    memory: bytes
    progress: tuple[Progress, ...]
    contribution: bytes
    received: bytes
    outbox: tuple[Letter, ...]


@dataclass(frozen=True)
class ServerRecord:
    """A server; nothing of it is secret.

    Attributes:
        parameters: of the session, as JSON.
        roster: the public keys of clients 1..n, one behind the other.
        setup: the set-up, or that it is over.
        session: what came of it; empty before there is a key.
        rounds: what runs the rounds, one as soon as there is a key.
        outbox: mail of the last step.
    """

    parameters: bytes
    roster: bytes
    setup: SetupRecord
    session: bytes
    rounds: tuple[AggregatorRecord, ...]
    outbox: tuple[Letter, ...]


def write_parameters(parameters: SessionParameters) -> bytes:
    """Return the parameters as JSON."""
    return json.dumps(asdict(parameters), sort_keys=True).encode()


def read_parameters(data: bytes) -> SessionParameters:
    """Read `write_parameters`; EncodingError for anything else."""
    try:
        return SessionParameters(**json.loads(data))
    except (ValueError, TypeError, ParameterError) as error:
        raise EncodingError(f"the parameters cannot be read: {error}") from error


def write_roster(roster: Mapping[int, bytes]) -> bytes:
    """Return the keys of clients 1..n, one behind the other."""
    return b"".join(roster[index] for index in sorted(roster))


def read_roster(data: bytes, num_clients: int) -> Roster:
    """Read `write_roster`; EncodingError unless it holds so many keys."""
    size = len(data) // num_clients
    keys = {i + 1: data[i * size : (i + 1) * size] for i in range(num_clients)}
    try:
        return Roster(keys)
    except ParameterError as error:
        raise EncodingError(f"the roster cannot be read: {error}") from error


def write_stage(stage: Stage) -> tuple[int, bytes]:
    """Return the number and the bytes of a stage."""
    if isinstance(stage, Keyed):
        return KEYED, codec.pack(KeyedRecord(stage.opened, keyfile.write_keys(stage.keys)))
    return STAGES.index(type(stage)), codec.pack(stage)


def read_stage(number: int, data: bytes, plan: Plan, roster: Roster, index: int) -> Stage:
    """Read `write_stage`; EncodingError for anything else."""
    if number == KEYED:
        record = codec.unpack(data, KeyedRecord)
        return Keyed(keyfile.read_keys(record.keys, plan, roster, index), record.opened)
    if number > KEYED:
        raise EncodingError(f"there is no stage {number}")
    return codec.unpack(data, STAGES[number])


def write_outbox(mail: Mail) -> tuple[Letter, ...]:
    """Return mail as records; what goes to many, one after the other, is written once."""
    return tuple(
        Letter(tuple(int(receiver) for receiver, _ in letters), data)
        for data, letters in groupby(mail, key=itemgetter(1))
    )


def read_outbox(letters: tuple[Letter, ...]) -> Mail:
    """Return records as mail."""
    return [(receiver, letter.data) for letter in letters for receiver in letter.receivers]
