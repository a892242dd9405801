"""A client over a connection: what it keeps before it speaks, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mphe import Client, Identity, Server, SessionParameters, Step, TrainOn, serial_of
from mphe.errors import LocalProtocolError
from mphe.net.events import Received
from mphe.net.loopback import Network
from mphe.run.driver import Driver, LogReporter, Observer
from mphe.run.session import ClientSession, ServerGone, follow
from mphe.wire import codec
from mphe.wire.messages import Contribution, DecryptionShare, Finish, Message, Refusal

PARAMETERS = SessionParameters(num_clients=3, threshold=2, length=60, rounds=20)


class Constant:
    """A client's work: always the same integers, as soon as the gate is open."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.gate: asyncio.Event | None = None
        self.heard: list[tuple[int, bool]] = []
        self.left: list[int] = []

    async def update(self, round: int, model: bytes) -> np.ndarray:
        if self.gate is not None:
            await self.gate.wait()
        return np.full(PARAMETERS.length, self.value)

    def metrics(self, encrypt_seconds: float) -> bytes:
        return b"metrics"

    def sent(self, round: int) -> None:
        self.left.append(round)

    def ended(self, round: int, counted: bool) -> None:
        self.heard.append((round, counted))


class World:
    """A server and three clients over a loopback network; client 1 has a disk."""

    def __init__(self) -> None:
        self.identities = {i: Identity.generate() for i in (1, 2, 3)}
        self.roster = {i: identity.public for i, identity in self.identities.items()}
        self.network = Network()
        self.server = Server(PARAMETERS, self.roster)
        self.driver = Driver(self.network.server, LogReporter())
        self.disk: list[bytes] = []
        self.full = False
        self.work = {i: Constant(i) for i in self.identities}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.sessions: dict[int, ClientSession] = {}
        self.said: list[Message] = []

    def keep(self, state: bytes) -> None:
        if self.disk and serial_of(state) == serial_of(self.disk[-1]):
            return
        if self.full:
            raise OSError(28, "No space left on device")
        self.disk.append(state)

    def play(self, index: int, party: Client, begin: str, leaves: Callable[[int], bool]) -> None:
        keep = self.keep if index == 1 else None
        transport = self.network.connect(index)
        session = ClientSession(party, transport, self.work[index], keep, leaves)
        getattr(session, begin)()

        async def connect() -> Any:
            return self.network.connect(index)

        self.sessions[index] = session
        self.tasks[index] = asyncio.create_task(follow(session, connect))

    def start(self, index: int, leaves: Callable[[int], bool] = lambda round: False) -> None:
        journal = self.keep if index == 1 else None
        identity = self.identities[index]
        party = Client(index, PARAMETERS, identity, self.roster, journal=journal)
        self.play(index, party, "start", leaves)

    def start_again(self) -> Client:
        """Let client 1 come back from what its disk holds."""
        party = Client.restore(self.disk[-1], self.identities[1], journal=self.keep)
        self.play(1, party, "come_back", lambda round: False)
        return party

    async def kill(self, index: int) -> None:
        self.tasks[index].cancel()
        await asyncio.gather(self.tasks[index], return_exceptions=True)
        await self.sessions[index].transport.close()

    async def run(self, step: Step | None = None) -> Observer:
        observer = Observer()
        await self.driver.run(self.server, step or Step(), 600, observer)
        return observer

    async def round(self) -> Any:
        """Run a round with all who are there; return how it ended."""
        await self.driver.catch_up(self.server, Observer())
        present = self.server.members & set(self.network.server.connected)
        observer = await self.run(self.server.start_round(b"model", present))
        return observer.events[-1]

    async def end(self) -> None:
        for peer in self.network.server.connected:
            self.network.server.send(peer, codec.encode(Finish("over")))
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def opened(**leaves: Callable[[int], bool]) -> World:
    world = World()
    for index in world.identities:
        world.start(index, leaves.get(f"client_{index}", lambda round: False))
    await world.run()
    return world


def test_rounds_are_summed_and_everybody_hears_whether_it_was_counted() -> None:
    async def play() -> None:
        world = await opened()
        for number in (1, 2):
            summed = await world.round()
            assert summed.round == number and np.array_equal(summed.total, np.full(60, 6))
        await world.end()
        assert all(work.heard == [(1, True), (2, True)] for work in world.work.values())
        assert all(work.left == [1, 2] for work in world.work.values())

    asyncio.run(play())


def test_nothing_is_sent_before_the_state_it_belongs_to_is_kept() -> None:
    """Claim: whatever client 1 says in the rounds, its disk knows of before it leaves."""

    async def play() -> None:
        world = await opened()
        said: list[tuple[type[Message], bool]] = []
        transport: Any = world.sessions[1].transport
        send = transport.send
        # Client 1 contributes first, so it is among those who are asked first.
        gate = world.work[2].gate = world.work[3].gate = asyncio.Event()

        def watched(data: bytes) -> bool:
            message = codec.decode(data, 1)
            known = False
            if world.disk:
                kept = Client.restore(world.disk[-1], world.identities[1])
                if isinstance(message, Contribution):
                    # The stored bytes, not a second encryption.
                    known = kept.contribute(1, np.zeros(60, np.int64)).mail == [(0, data)]
                elif kept.decryptor is not None:
                    known = kept.decryptor.memory.round == 1
            said.append((type(message), known))
            gate.set()
            return bool(send(data))

        transport.send = watched
        summed = await world.round()
        assert np.array_equal(summed.total, np.full(60, 6))
        assert said == [(Contribution, True), (DecryptionShare, True)]
        serials = [serial_of(state) for state in world.disk]
        assert serials == sorted(serials)
        await world.end()

    asyncio.run(play())


def test_a_client_that_died_contributes_and_decrypts_again() -> None:
    async def play() -> None:
        world = await opened()
        await world.round()
        await world.kill(1)
        await world.kill(3)
        party = world.start_again()
        await asyncio.sleep(0)
        summed = await world.round()
        assert summed.contributors == (1, 2) and np.array_equal(summed.total, np.full(60, 3))
        assert party.round == 2
        await world.end()

    asyncio.run(play())


def test_a_client_that_cannot_write_down_its_answer_refuses_to_give_it() -> None:
    async def play() -> None:
        world = await opened()
        world.disk.clear()
        original = world.network.server.next_event
        heard: list[Message] = []
        # Client 1 contributes first, so it is among those who are asked first.
        gate = world.work[2].gate = world.work[3].gate = asyncio.Event()

        async def listen(timeout: float | None) -> Any:
            event = await original(timeout)
            if isinstance(event, Received) and event.peer == 1:
                heard.append(codec.decode(event.payload, 1))
                gate.set()
                # Its contribution is on the disk, and then there is no room for the answer.
                world.full = True
            return event

        world.network.server.next_event = listen  # type: ignore[method-assign]
        summed = await world.round()
        assert np.array_equal(summed.total, np.full(60, 6))
        refusals = [message for message in heard if isinstance(message, Refusal)]
        if any(isinstance(message, DecryptionShare) for message in heard) or not refusals:
            pytest.fail("client 1 was to be asked first, and to refuse")
        assert "cannot write down what it answers: No space left" in refusals[0].reason
        world.full = False
        await world.end()

    asyncio.run(play())


def test_who_leaves_a_round_on_purpose_is_back_for_the_next() -> None:
    async def play() -> None:
        world = await opened(client_2=lambda round: round == 1)
        first = await world.round()
        assert first.contributors == (1, 3)
        while 2 not in world.network.server.connected:
            await asyncio.sleep(0)
        second = await world.round()
        assert second.contributors == (1, 2, 3)
        await world.end()

    asyncio.run(play())


class Overtaken:
    """A party of verified rounds: while it encrypts, a round begins that leaves it out."""

    is_open = True

    def __init__(self, newer: int) -> None:
        self.round = 1
        self._newer = newer

    def encrypt(self, _values: Any) -> None:
        self.round = self._newer
        raise LocalProtocolError("this round does not list what this client pledged")


@pytest.mark.parametrize("newer", [2, 1])
def test_an_update_that_a_newer_round_overtakes_is_dropped(newer: int) -> None:
    party: Any = Overtaken(newer)
    transport: Any = None
    session = ClientSession(party, transport, Constant(1))
    work = session._contribute(TrainOn(1, b"model"))
    if newer == 1:  # the same round: that is an error of ours, and is not hidden
        with pytest.raises(LocalProtocolError):
            asyncio.run(work)
        return
    asyncio.run(work)


def test_a_client_without_keys_has_lost_its_place_with_its_connection() -> None:
    async def play() -> None:
        world = World()
        world.start(1)
        await asyncio.sleep(0)
        world.network.server.disconnect(1, "the test says so")
        with pytest.raises(ServerGone):
            await world.tasks[1]

    asyncio.run(play())
