"""All parties in one process, on seeded randomness, with hooks to drop, delay and forge.

Every message goes through the codec and one first-in, first-out queue. A role that refuses a
message is recorded in `refusals`; its sender then loses its place, as with the real drivers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mphe.arithmetic.hedge import Hedge
from mphe.arithmetic.ring import Element, Integers, Ring
from mphe.arithmetic.sampling import RandomSource
from mphe.client import Client
from mphe.errors import RefusedDecryption, RemoteProtocolError
from mphe.plan.agreement import SessionParameters
from mphe.roles.identity import Identity
from mphe.roles.machine import Event, Output, Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor, TrainOn
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.rounds.judging import Judge
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.roles.setup.client import Committed, Revealed, SetupClient
from mphe.roles.setup.common import PublicSession, SessionKeys
from mphe.roles.setup.server import SetupAbandoned, SetupDone, SetupServer
from mphe.roles.step import Step
from mphe.scheme.decryption import read_blocks
from mphe.scheme.encryptor import Encryptor, Payload
from mphe.scheme.rlwe import KeyShare
from mphe.scheme.running_sum import RunningSum
from mphe.server import Server, SessionReady
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Group,
    Message,
    Refusal,
    RoundEnd,
    RoundStart,
)
from tests.support import SeededSource as SeededSource
from tests.support import SeededSystem, seed_of

Intercept = Callable[[int, int, Message], Iterable[Message]]
"""(sender, receiver, message) → the messages that are delivered in its stead."""

NOBODY: Mapping[int, Any] = MappingProxyType({})


class Roles(MutableMapping[int, Any]):
    """One role of all clients that have it; to set it is to start that client's role again."""

    def __init__(self, parties: Mapping[int, Client], name: str) -> None:
        self._parties = parties
        self._name = name

    def __getitem__(self, index: int) -> Any:
        role = getattr(self._parties[index], self._name)
        if role is None:
            raise KeyError(index)
        return role

    def __setitem__(self, index: int, role: Any) -> None:
        setattr(self._parties[index], self._name, role)

    def __delitem__(self, index: int) -> None:
        setattr(self._parties[index], self._name, None)

    def __iter__(self) -> Iterator[int]:
        return (i for i, party in self._parties.items() if getattr(party, self._name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Simulation:
    """n clients and a server; `run_setup`, then `run_round` as often as wanted."""

    def __init__(
        self,
        n: int,
        t: int,
        length: int = 60,
        *,
        label: str = "simulation",
        clients: Mapping[int, type[SetupClient]] = NOBODY,
        server: type[SetupServer] = SetupServer,
        decryptor: type[Decryptor] = Decryptor,
        judge: Judge | None = None,
        **session: Any,
    ) -> None:
        """Prepare all parties; `clients` replaces the class of single ones.

        Sums of as few as t updates are allowed, unless they are verified or tests say else.
        """
        self.label = label
        if not session.get("verified"):
            session.setdefault("min_contributors", max(2, t))
        self.parameters = SessionParameters(n, t, length, session.pop("rounds", 50), **session)
        self.identities = {
            i: Ed25519PrivateKey.from_private_bytes(seed_of(f"{label}/identity/{i}"))
            for i in range(1, n + 1)
        }
        self.roster = {i: k.public_key().public_bytes_raw() for i, k in self.identities.items()}
        host: type[Server] = type("Host", (Server,), {"SETUP": server})
        self.host = host(self.parameters, self.roster, source=self.source("server"), judge=judge)
        self.parties = {
            i: self._party(i, clients.get(i, SetupClient), decryptor) for i in self.identities
        }
        self.plan = self.host.plan
        self.ring = Ring(self.plan.threshold.ring)
        self.clients: MutableMapping[int, SetupClient] = Roles(self.parties, "setup")
        self.decryptors: MutableMapping[int, Decryptor] = Roles(self.parties, "decryptor")
        self.contributors: MutableMapping[int, Contributor] = Roles(self.parties, "contributor")
        self.keys: dict[int, SessionKeys] = {}
        self.updates: Mapping[int, Integers] = NOBODY
        self.intercept: Intercept | None = None
        self.events: list[tuple[int, Event]] = []
        self.refusals: list[tuple[int, RemoteProtocolError]] = []
        self.log: list[tuple[int, int, Message]] = []
        self.silent: set[int] = set()
        self.key_shares: dict[int, KeyShare] = {}
        self.names: dict[int, bytes] = {}
        self.stages: dict[int, Committed] = {}
        self.revealed: dict[int, Revealed] = {}
        self._queue: deque[tuple[int, int, Message]] = deque()
        self._leaving: dict[tuple[int, type[Any]], tuple[bool, bool]] = {}

    def _party(self, index: int, setup: type[SetupClient], decryptor: type[Decryptor]) -> Client:
        kind = type("Party", (Client,), {"SETUP": setup, "DECRYPTOR": decryptor})
        identity, system = Identity(self.identities[index]), self.system(f"party/{index}")
        party: Client = kind(index, self.parameters, identity, self.roster, system=system)
        return party

    @property
    def server(self) -> SetupServer:
        """The role of the server that makes the key."""
        return self.host.setup

    @property
    def aggregator(self) -> Aggregator | None:
        """The role of the server that runs the rounds."""
        return self.host.aggregator

    @aggregator.setter
    def aggregator(self, role: Aggregator) -> None:
        self.host.aggregator = role

    # -- hooks -----------------------------------------------------------------------------------

    def system(self, name: str) -> SeededSystem:
        """Return the machine of that name."""
        return SeededSystem(f"{self.label}/{name}")

    def hedge(self, name: str) -> Hedge:
        """Return what a role of that name draws from."""
        return Hedge.fresh(self.system(name))

    def source(self, name: str) -> SeededSource:
        """Return the stream of that name."""
        return SeededSource(f"{self.label}/{name}")

    def vanish(self, index: int, *, told: bool = True) -> None:
        """Cut a client off; the server is told at once or has to wait for its deadline."""
        self.silent.add(index)
        if told:
            self.post(SERVER, self.host.lost(index))

    def vanish_before(self, index: int, kind: type[Any], *, told: bool = False) -> None:
        """Let a client vanish instead of sending its first message of this kind."""
        self._leaving[index, kind] = (False, told)

    def vanish_after(self, index: int, kind: type[Any], *, told: bool = False) -> None:
        """Let a client vanish as soon as its first message of this kind has arrived."""
        self._leaving[index, kind] = (True, told)

    def deadline(self) -> None:
        """Let the server's deadline pass, and deliver what follows."""
        self.post(SERVER, self.host.deadline_passed())
        self.pump()

    # -- delivery --------------------------------------------------------------------------------

    def post(self, sender: int, step: Step) -> None:
        """Queue the mail of a party and take note of its events."""
        for receiver, data in step.mail:
            message = codec.decode(data, sender)
            self._queue.append((sender, receiver, message))
            if isinstance(message, Refusal):
                self.refusals.append((sender, RefusedDecryption(SERVER, message.reason)))
        for event in step.events:
            self._note(sender, event)

    def push(self, sender: int, outputs: Iterable[Output]) -> None:
        """Queue what a role sends and take note of what it tells."""
        self.post(sender, Step.of(outputs))

    def pump(self) -> None:
        """Deliver until nothing is under way."""
        while self._queue:
            sender, receiver, message = self._queue.popleft()
            if {sender, receiver} & self.silent:
                continue
            leaving = self._leaving.pop((sender, type(message)), None)
            if leaving is None or leaving[0]:
                replaced = self.intercept(sender, receiver, message) if self.intercept else None
                for delivered in [message] if replaced is None else replaced:
                    self.deliver(sender, receiver, delivered)
            if leaving is not None:
                self.vanish(sender, told=leaving[1])

    def deliver(self, sender: int, receiver: int, message: Message) -> None:
        """Hand one message over, as bytes."""
        data = codec.encode(message)
        received = codec.decode(data, sender)
        self.log.append((sender, receiver, received))
        self._remember(receiver)
        try:
            if receiver == SERVER:
                step = self.host.receive(sender, data)
            else:
                step = self.parties[receiver].receive(data)
        except RemoteProtocolError as error:
            self.refusals.append((receiver, error))
            if receiver == SERVER:
                self.vanish(error.sender)
            else:
                self.silent.add(receiver)
        else:
            self._remember(receiver)
            self._keep_keys(receiver)
            self.post(receiver, step)

    def _remember(self, index: int) -> None:
        """Note the secrets and the session's name that a client soon forgets."""
        role = None if index == SERVER else self.clients[index]
        if isinstance(role, SetupClient) and isinstance(role.stage, Committed):
            self.key_shares[index] = role._key_share(role.stage)
            self.names[index] = role.stage.session
            self.stages[index] = role.stage
        elif isinstance(role, SetupClient) and isinstance(role.stage, Revealed):
            self.revealed[index] = role.stage

    def _serving(self) -> SetupServer | Aggregator:
        return self.aggregator or self.server

    def _role(self, index: int, message: Message) -> SetupClient | Contributor | Decryptor:
        if isinstance(message, DecryptionRequest):
            return self.decryptors[index]
        if isinstance(message, RoundStart | RoundEnd):
            return self.contributors[index]
        return self.clients[index]

    def _keep_keys(self, index: int) -> None:
        keys = None if index == SERVER else self.clients[index].keys
        if keys is not None and self.keys.get(index) is not keys:
            self.keys[index] = keys

    def _note(self, party: int, event: Event) -> None:
        if isinstance(event, SessionReady):
            event = SetupDone(self.session, event.missing, event.unconfirmed)
        self.events.append((party, event))
        if isinstance(event, TrainOn) and party in self.updates:
            self.post(party, self.parties[party].contribute(event.round, self.updates[party]))

    # -- whole stages ----------------------------------------------------------------------------

    def run_setup(self) -> SetupDone | SetupAbandoned:
        """Run the set-up to its end, deadlines included."""
        for index, client in self.clients.items():
            self.push(index, client.start())
        self.pump()
        for _ in range(20):
            for party, event in self.events:
                if party == SERVER and isinstance(event, SetupDone | SetupAbandoned):
                    return event
            self.deadline()
        raise AssertionError("the set-up does not end")

    def run_round(
        self,
        updates: Mapping[int, Integers],
        *,
        present: Iterable[int] | None = None,
        model: bytes = b"model",
    ) -> Summed | Abandoned:
        """Run one round to its end; clients without an update stay silent."""
        self.begin_round(updates, present=present, model=model)
        self.pump()
        return self.finish_round()

    def begin_round(
        self,
        updates: Mapping[int, Integers],
        *,
        present: Iterable[int] | None = None,
        model: bytes = b"model",
    ) -> None:
        """Queue the start of a round."""
        assert self.aggregator is not None
        self.updates = updates
        self._ended = len(self.events)
        there = sorted(set(self.contributors) - self.silent) if present is None else present
        self.post(SERVER, self.host.start_round(model, there))

    def finish_round(self) -> Summed | Abandoned:
        """Let deadlines pass until the round is over, and return how it ended."""
        for _ in range(20):
            for party, event in self.events[self._ended :]:
                if party == SERVER and isinstance(event, Summed | Abandoned):
                    return event
            self.deadline()
        raise AssertionError("the round does not end")

    def collect(
        self, updates: Mapping[int, Integers], models: Mapping[int, bytes] = NOBODY
    ) -> tuple[dict[int, Contribution], DecryptionRequest]:
        """Run a round up to the decryption; return what was sent and what an honest server asks.

        Args:
            updates: of the contributors.
            models: what single clients are shown instead of the model.
        """
        requests: list[DecryptionRequest] = []
        sent: dict[int, Contribution] = {}

        def intercept(sender: int, receiver: int, message: Message) -> list[Message]:
            if isinstance(message, DecryptionRequest):
                requests.append(message)
                return []
            if isinstance(message, RoundStart) and receiver in models:
                return [replace(message, model=models[receiver])]
            if isinstance(message, Contribution):
                sent[sender] = message
            return [message]

        self.intercept = intercept
        self.begin_round(updates)
        self.pump()
        if not requests:
            self.deadline()
        self.intercept = None
        return sent, requests[0]

    # -- material --------------------------------------------------------------------------------

    @property
    def session(self) -> PublicSession:
        """Return what the server holds."""
        assert self.aggregator is not None
        return self.aggregator.session

    def random_updates(
        self, clients: Iterable[int] | None = None, seed: int = 0
    ) -> dict[int, Integers]:
        """Return one update for each client, the largest value included."""
        rng = np.random.default_rng(seed)
        bits, length = self.parameters.value_bits, self.parameters.length
        chosen = self.identities if clients is None else clients
        updates = {i: rng.integers(0, 1 << bits, length) for i in chosen}
        for update in updates.values():
            update[:2] = (1 << bits) - 1, 0
        return updates

    def encrypted(self, index: int, update: Integers) -> Payload:
        """Return an update as a client encrypts it, who may do so before the session is open."""
        if index in self.contributors:
            return self.contributors[index].encrypt(update)
        keys = self.keys[index]
        encryptor = Encryptor(keys.plan, keys.key, keys.crs_seed)
        return encryptor.encrypt(update, self.source(f"by hand/{index}"))

    def contribution(self, index: int, round: int, update: Integers) -> Contribution:
        """Return what a client would send in that round."""
        payload = self.encrypted(index, update)
        parts = (payload.c0, payload.c1, payload.body)
        return Contribution(round, *parts, b"", transcript=self.session.transcript)

    def request(
        self, contributions: Mapping[int, Contribution], **fields: Any
    ) -> DecryptionRequest:
        """Return the request for the sum of these contributions; `fields` overrides any part."""
        active = tuple(range(1, self.parameters.threshold + 1))
        group = Group(tuple(sorted(contributions)), self.adding(contributions).c1())
        honest = DecryptionRequest(1, 1, active, (group,), transcript=self.session.transcript)
        return rephrased(honest, **fields)

    def adding(self, contributions: Mapping[int, Contribution]) -> RunningSum:
        """Return the running sum that the server would hold."""
        adding = RunningSum(self.plan, self.session.crs_seed)
        for contribution in contributions.values():
            adding.add(adding.parse(contribution))
        return adding

    def ask(self, request: DecryptionRequest) -> dict[int, DecryptionShare]:
        """Return the shares of all active decryptors.

        Raises:
            RefusedDecryption: one of them refuses.
        """
        shares: dict[int, DecryptionShare] = {}
        for index in request.active:
            (output,) = self.decryptors[index].receive(SERVER, request)
            assert isinstance(output, Send) and isinstance(output.message, DecryptionShare)
            shares[index] = output.message
        return shares

    def read_share(self, share: DecryptionShare) -> list[Element]:
        """Return the elements of a decryption share."""
        layout = self.plan.threshold_layout(share.round)
        return read_blocks(self.ring, layout, share.share, self.plan.dropped_share)

    def decrypt(
        self, contributions: Mapping[int, Contribution], request: DecryptionRequest
    ) -> Integers | None:
        """Return the sum that a server computes from the answers to a request."""
        shares = [self.read_share(share) for share in self.ask(request).values()]
        return self.adding(contributions).recover(shares, len(contributions))


def only_group(request: DecryptionRequest) -> Group:
    """Return the contributors and c1 that a request names."""
    (group,) = request.groups
    return group


def rephrased(request: DecryptionRequest, **changes: Any) -> DecryptionRequest:
    """Return a request with changes, where contributors and c1 are those of its only group."""
    names = {"contributors", "c1"} & set(changes)
    group = replace(only_group(request), **{name: changes.pop(name) for name in names})
    return replace(request, groups=(group,), **changes)


def altering(
    kind: type[Any],
    change: Callable[[Any], Message],
    *,
    sender: int | None = None,
    receiver: int | None = None,
) -> Intercept:
    """Return a hook that changes messages of one kind from one sender or to one receiver."""

    def alter(by: int, to: int, message: Message) -> list[Message]:
        ours = isinstance(message, kind) and sender in (None, by) and receiver in (None, to)
        return [change(message) if ours else message]

    return alter


def integers(limbs: Integers) -> list[int]:
    """Return the coefficients of limbs (L, n) as Python integers, not reduced."""
    rows = [[int(limb) for limb in row] for row in limbs]
    return [sum(row[i] << 32 * k for k, row in enumerate(rows)) for i in range(limbs.shape[1])]


def centred(value: int, modulus: int) -> int:
    """Return the representative of smallest absolute value."""
    value %= modulus
    return value - modulus if value > modulus // 2 else value


def snapshot(value: Any) -> Any:
    """Return something comparable that changes whenever the state of a role changes."""
    if isinstance(value, SeededSource):
        return ("source", value.drawn)
    if isinstance(value, SeededSystem):
        return ("source", value.source.drawn)
    if isinstance(value, RandomSource):
        return ("source", id(value))
    if isinstance(value, Ed25519PrivateKey | X25519PrivateKey):
        return value.private_bytes_raw()
    if isinstance(value, np.ndarray):
        return (value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(value)
    if value is None or isinstance(value, Enum | int | float | str | bytes):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [snapshot(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Ring) or callable(value):
        return None
    if not hasattr(value, "__dict__"):
        return id(value)
    return {key: snapshot(item) for key, item in vars(value).items()}
