"""Whatever a peer says, a role takes it or raises `RemoteProtocolError` and is as it was.

A recorded session gives each role in every state it goes through. From each state it hears the
session's messages: whole or altered, out of turn, from the wrong party, signed anew after the
change or not, and losses and deadlines in between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.arithmetic.ring import Ring
from mphe.arithmetic.sampling import RandomSource
from mphe.arithmetic.system import System
from mphe.errors import MalformedMessage, RemoteProtocolError
from mphe.plan.plan import Plan
from mphe.roles.machine import Machine, Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.setup import common as setup
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.common import KeyShareReader, PublicSession, SessionKeys
from mphe.roles.setup.server import SetupServer
from mphe.roles.verified.evidence import Prover, Verifier
from mphe.scheme import sealing
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.onetime import OneTimeCipher
from mphe.scheme.rlwe import CollectiveKey
from mphe.scheme.sealing import PairwiseKeys
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    Commit,
    Commitments,
    DecryptionShare,
    Join,
    JoinList,
    Message,
    Qualified,
    Ready,
    Reveal,
)
from tests.fuzz.fuzzing import EDGES, SMALL_MESSAGES, alter, damage, inputs, peak_of, traced
from tests.simulation import Simulation, snapshot

pytestmark = pytest.mark.timeout(3600)

CLIENT, STRANGER = 1, 99
SHARED = (
    RandomSource,
    System,
    PairwiseKeys,
    Ed25519PrivateKey,
    Ring,
    Plan,
    SessionKeys,
    PublicSession,
    Encryptor,
    OneTimeCipher,
    CollectiveKey,
    KeyShareReader,
    Prover,
    Verifier,
)
"""What copies of a role have in common: it never changes, or it is a stream."""

NO_STATE = {"plan", "session", "_cipher", "_encryptor", "_identities", "_scaled"}
NO_STATE |= {"_keys", "_key", "_reader", "_verifier", "_prover", "_proof"}
"""Attributes that are frozen, and the decryptor's transform of λ·s, which is a cache."""

PARTS = ("_sum", "_confirmation", "_ledger", "_pledged")
"""Attributes with a state of their own."""

MEMORY = 8 << 20
"""Bytes that one message may take: a handful of ring elements and their transforms."""

PROOF_MEMORY = 24 << 20
"""The masks, commitments and responses of a whole proof as well."""


def twin(role: Any) -> Any:
    """Return an independent copy of a role."""
    parts = (role, *(getattr(role, name, None) for name in PARTS))
    held = [item for part in parts if part is not None for item in vars(part).values()]
    return copy.deepcopy(role, {id(item): item for item in held if isinstance(item, SHARED)})


def state_of(role: Any) -> Any:
    """Return all that a role remembers."""
    return {
        name: state_of(item) if name in PARTS and item is not None else snapshot(item)
        for name, item in vars(role).items()
        if name not in NO_STATE
    }


@dataclass
class Scene:
    """A role as it was before a message of the recorded session."""

    role: Any
    sender: int
    message: Message


class Recorder(Simulation):
    """Keeps each role under test as it was before each of its messages."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scenes: dict[type[Any], list[Scene]] = {}

    def deliver(self, sender: int, receiver: int, message: Message) -> None:
        if receiver in (SERVER, CLIENT):
            role = self._serving() if receiver == SERVER else self._role(receiver, message)
            scene = Scene(twin(role), sender, message)
            self.scenes.setdefault(type(role), []).append(scene)
        super().deliver(sender, receiver, message)


def record(encryption: str, seed: int) -> Recorder:
    """Return a session of three rounds: all well, one decryptor lost, one client too few."""
    verified = encryption == "verified"
    options: dict[str, Any] = {"verified": True} if verified else {"encryption": encryption}
    recorder = Recorder(4, 3 if verified else 2, 60, label=f"fuzz/{encryption}/{seed}", **options)
    recorder.run_setup()
    recorder.run_round(recorder.random_updates())
    recorder.vanish_before(2, DecryptionShare)
    recorder.run_round(recorder.random_updates())
    recorder.run_round(recorder.random_updates([3]), present=[1, 3, 4])
    # After the last round has closed.
    for kind in (SetupServer, SetupClient, Aggregator, Contributor, Decryptor):
        scenes = recorder.scenes[kind]
        last: Any = {
            SetupServer: recorder.server,
            SetupClient: recorder.clients[CLIENT],
            Aggregator: recorder.aggregator,
            Contributor: recorder.contributors[CLIENT],
            Decryptor: recorder.decryptors[CLIENT],
        }[kind]
        scenes.append(Scene(twin(last), scenes[0].sender, scenes[0].message))
    return recorder


MODES = ("hybrid", "direct", "verified")


@pytest.fixture(scope="module")
def recorders() -> dict[str, Recorder]:
    return {encryption: record(encryption, 0) for encryption in MODES}


# -- signing what was altered ----------------------------------------------------------------------


def sign(recorder: Recorder, purpose: str, index: int, parts: Callable[[], Any]) -> bytes:
    """Return the signature of a client, or of client 1 for a stranger's index."""
    if index not in recorder.identities:
        return b"s" * 64
    return sealing.sign(recorder.identities[index], purpose, *parts())


def signed(recorder: Recorder, message: Any, sender: int) -> Any:
    """Return the message with signatures that fit its content, as a dishonest signer's would."""
    session = recorder.names[CLIENT]
    if isinstance(message, Join):
        parts = recorder.server._epoch
        signature = sign(recorder, "join", message.index, lambda: setup.join_parts(parts, message))
        return replace(message, signature=signature)
    if isinstance(message, Commit):
        by = message.index
        signature = sign(recorder, "commit", by, lambda: setup.commit_parts(session, message))
        return replace(message, signature=signature)
    if isinstance(message, Reveal):
        reveal = message.reveal
        by = reveal.index
        signature = sign(recorder, "reveal", by, lambda: setup.reveal_parts(session, reveal))
        return replace(message, reveal=replace(reveal, signature=signature))
    if isinstance(message, Ready):
        name = recorder.session.transcript
        return replace(message, signature=sign(recorder, "ready", sender, lambda: [name]))
    if isinstance(message, JoinList):
        return replace(message, joins=tuple(signed(recorder, j, sender) for j in message.joins))
    if isinstance(message, Commitments):
        return replace(message, commits=tuple(signed(recorder, c, sender) for c in message.commits))
    if isinstance(message, Qualified):
        reveals = [signed(recorder, Reveal(r, ()), sender).reveal for r in message.reveals]
        return replace(message, reveals=tuple(reveals))
    return message


# -- the fuzzer ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How it went."""

    refused: int = 0
    taken: int = 0
    malformed: int = 0
    peak: int = 0


class Fuzzer:
    """Feeds one kind of role."""

    def __init__(self, recorder: Recorder, kind: type[Machine[Any]]) -> None:
        self.recorder = recorder
        self.scenes = recorder.scenes[kind]
        self.pool = [scene.message for scene in self.scenes]
        everything = [scene.message for scenes in recorder.scenes.values() for scene in scenes]
        self.others = [*SMALL_MESSAGES, *everything]
        self.bytes = [codec.encode(message) for message in SMALL_MESSAGES]
        self.tally = Tally()
        self.memory = PROOF_MEMORY if recorder.parameters.verified else MEMORY

    def message(self, scene: Scene, rng: Random) -> Message | None:
        """Return what comes instead of the scene's message; None when it does not parse."""
        chosen = rng.choice(
            (scene.message, scene.message, rng.choice(self.pool), rng.choice(self.others))
        )
        if rng.random() < 0.15:
            try:
                return codec.decode(damage(codec.encode(chosen), rng, self.bytes), 0)
            except MalformedMessage:
                return None
        for _ in range(rng.randrange(3)):
            chosen = alter(chosen, rng)
        return signed(self.recorder, chosen, scene.sender) if rng.random() < 0.5 else chosen

    def sender(self, scene: Scene, rng: Random) -> int:
        """Return the right sender more often than not."""
        return scene.sender if rng.random() < 0.8 else rng.choice(EDGES)

    def run(self, name: str, default: int) -> None:
        """Let a role hear one input after the other, starting over when it has moved on."""
        scene, role, before, steps = self.scenes[0], None, None, 0
        for number, rng in inputs(name, default):
            # Sometimes a role goes on, so that it hears things twice and out of turn.
            if role is None or rng.random() < (0.4 if steps else 0.02):
                scene, steps = rng.choice(self.scenes), 0
                role = twin(scene.role)
                before = state_of(role)
            message = self.message(scene, rng)
            if message is None:
                self.tally.malformed += 1
                continue
            sender = self.sender(scene, rng)
            if self.heard(role, sender, message, f"{name} {number}"):
                # What comes too late is taken and forgotten, and so it is from a stranger.
                known = sender in self.recorder.identities or scene.sender == SERVER
                assert known or state_of(role) == before, f"{name} {number}: heard a stranger"
                steps += 1
                self.disturb(role, rng)
                before = state_of(role)
            else:
                assert state_of(role) == before, f"{name} {number}: a refusal changed the role"
        print(f"{name}: {self.tally}")
        assert self.tally.refused > 20 and self.tally.taken > 10

    def heard(self, role: Any, sender: int, message: Message, name: str) -> bool:
        """Deliver; return whether it was taken. Anything but the documented exception is raised."""

        def deliver() -> list[Any] | None:
            try:
                return list(role.receive(sender, message))
            except RemoteProtocolError as error:
                assert error.sender == sender, name
                return None

        outputs, peak = peak_of(deliver)
        assert peak < self.memory, f"{name}: {peak} bytes"
        self.tally.peak = max(peak, self.tally.peak)
        if outputs is None:
            self.tally.refused += 1
            return False
        self.tally.taken += 1
        for output in outputs:
            if isinstance(output, Send):
                assert codec.decode(codec.encode(output.message), SERVER) == output.message, name
        return True

    def disturb(self, role: Any, rng: Random) -> None:
        """Let a peer vanish or a deadline pass, which never raises."""
        if not isinstance(role, SetupServer | Aggregator):
            return
        if rng.random() < 0.1:
            role.lost(*rng.sample(EDGES, rng.randrange(3)))
        if rng.random() < 0.1:
            role.deadline_passed()


INPUTS = {
    SetupServer: 1500,
    SetupClient: 5000,
    Aggregator: 1500,
    Contributor: 8000,
    Decryptor: 1000,
}


@pytest.mark.parametrize("encryption", MODES)
@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
def test_role(kind: type[Machine[Any]], encryption: str, recorders: dict[str, Recorder]) -> None:
    with traced():
        Fuzzer(recorders[encryption], kind).run(f"{kind.__name__}/{encryption}", INPUTS[kind] // 2)


def of_a_stranger(message: Any) -> Message:
    """Return the message with the index of its sender in it, where it has one."""
    named: Message = replace(message, index=STRANGER) if hasattr(message, "index") else message
    return named


@pytest.mark.parametrize("kind", [SetupServer, Aggregator], ids=lambda kind: kind.__name__)
def test_a_stranger_changes_nothing(
    kind: type[Machine[Any]], recorders: dict[str, Recorder]
) -> None:
    recorder = recorders["hybrid"]
    everything = [scene.message for scene in recorder.scenes[kind]]
    for scene in recorder.scenes[kind]:
        role, before = twin(scene.role), state_of(scene.role)
        for message in (*everything, *SMALL_MESSAGES):
            # An aggregator may take it for a late message instead.
            with suppress(RemoteProtocolError):
                role.receive(STRANGER, of_a_stranger(message))
        assert state_of(role) == before


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
def test_right_message_is_taken_after_many_wrong_ones(
    kind: type[Machine[Any]], recorders: dict[str, Recorder]
) -> None:
    recorder = recorders["hybrid"]
    for at, scene in enumerate(recorder.scenes[kind][:-1]):
        role, before = twin(scene.role), state_of(scene.role)
        for number in range(20):
            rng = Random(f"wrong/{at}/{number}")
            wrong = alter(alter(rng.choice(SMALL_MESSAGES), rng), rng)
            # An aggregator may take it for a late message instead.
            with suppress(RemoteProtocolError):
                role.receive(STRANGER, wrong)
            assert state_of(role) == before
        role.receive(scene.sender, scene.message)


def test_twins_are_independent(recorders: dict[str, Recorder]) -> None:
    """The fuzzer would see nothing if copies shared what they change."""
    for kind, scenes in recorders["hybrid"].scenes.items():
        for scene in scenes[:-1]:
            before = state_of(scene.role)
            moved = twin(scene.role)
            moved.receive(scene.sender, scene.message)
            if kind is Contributor:
                continue  # its source is shared, and counts
            after = state_of(scene.role)
            assert drop_sources(after) == drop_sources(before)


def drop_sources(state: Any) -> Any:
    """Return a snapshot without the positions of the streams."""
    return {name: item for name, item in state.items() if not name.endswith(("source", "system"))}
