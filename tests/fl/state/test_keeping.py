"""A client with a state directory: what it keeps, and what it still knows when it comes back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl.run.client_session import Session, follow
from fl.state import vault as state
from fl.state.client import ClientState
from fl.state.vault import Vault
from mphe.net.events import Received
from mphe.net.loopback import Network
from mphe.roles import keyfile
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.returning import ReturningClient
from mphe.wire import codec
from mphe.wire.messages import DecryptionShare, Finish, Message, Ready, Refusal, SessionOpen
from tests.simulation import Simulation

IDENTITY = Ed25519PrivateKey.generate()


class World:
    """Client 1 of a simulated session, as the program runs it, and what it says."""

    def __init__(self, directory: Path) -> None:
        self.simulation = Simulation(3, 2)
        self.simulation.run_setup()
        self.directory = directory
        updates = self.simulation.random_updates()
        made = {i: self.simulation.contribution(i, 1, u) for i, u in updates.items()}
        self.request = self.simulation.request(made)
        self.second = self.simulation.request({i: made[i] for i in (1, 2)}, attempt=2)
        self.network = Network()

    def vault(self) -> Vault:
        return Vault(self.directory, IDENTITY, 1, self.simulation.plan.digest)

    async def process(self, *asked: Message) -> list[Message]:
        """Start the client from its files, ask it, end it; return what it said."""
        vault = self.vault()
        kept = ClientState(vault)
        found = kept.load(self.simulation.plan, self.simulation.roster, 1)
        assert found is not None
        keys, memory = found
        learner: Any = None
        session = Session(1, learner, self.network.connect(1), kept)
        session.come_back(ReturningClient(keys, self.simulation.identities[1]), memory)
        opened = SessionOpen((1, 2, 3), self.simulation.session.welcome.vouches)
        for message in (opened, *asked, Finish("over")):
            self.network.server.send(1, codec.encode(message))

        async def connect() -> Any:
            raise AssertionError("nobody cut the connection")

        await follow(session, connect)
        vault.close()
        await session.transport.close()
        said = []
        while (event := await self.network.server.next_event(0)) is not None:
            if isinstance(event, Received):
                said.append(codec.decode(event.payload, 1))
        return said

    def keep(self, memory: Memory) -> None:
        vault = self.vault()
        ClientState(vault).keep(self.simulation.keys[1], memory)
        vault.close()


def test_a_process_knows_what_the_one_before_it_answered(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path / "state")
        world.keep(Memory(confirming=False))
        ready, share = await world.process(world.request)
        assert isinstance(ready, Ready) and not ready.unopened
        assert isinstance(share, DecryptionShare)
        ready, refusal = await world.process(world.second)
        assert isinstance(refusal, Refusal)
        assert "another aggregate" in refusal.reason

    asyncio.run(play())


def test_the_journal_is_on_the_disk_before_the_answer_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        world = World(tmp_path / "state")
        world.keep(Memory(confirming=False))
        write = state.write_atomically

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(state, "write_atomically", full)
        _, refusal = await world.process(world.request)
        assert isinstance(refusal, Refusal)
        assert "cannot write down what it answers: No space left on device" in refusal.reason
        monkeypatch.setattr(state, "write_atomically", write)
        _, share = await world.process(world.request)
        assert isinstance(share, DecryptionShare)

    asyncio.run(play())


def test_keys_are_written_after_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves no keys, rather than keys that forgot their answers."""
    world, order = World(tmp_path / "state"), []
    write = state.write_atomically

    def note(path: Path, content: bytes) -> None:
        order.append(path.name)
        write(path, content)

    monkeypatch.setattr(state, "write_atomically", note)
    world.keep(Memory(confirming=False))
    assert order == ["journal", "keys"]
    vault = world.vault()
    text = vault.read("journal")
    assert text is not None
    keys = world.simulation.keys[1]
    assert keyfile.read_memory(text, keys.transcript) == Memory(confirming=False)
    vault.close()
