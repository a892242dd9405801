"""mphe.run: whole sessions over TCP and TLS, in one process, with deaths on both sides."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest

import mphe
from mphe import run
from mphe.roles.machine import Output
from mphe.roles.rounds.aggregator import Aggregator
from mphe.run.serve import Outcome
from mphe.wire.messages import DecryptionShare
from tests.patience import scaled
from tests.ports import free_port

LENGTH = 40
PARAMETERS = mphe.SessionParameters(num_clients=3, threshold=2, length=LENGTH, rounds=2000)
HOST = "127.0.0.1"


class World:
    """Credentials of all parties, and what a server makes of its rounds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.own = {i: run.new_credentials(f"party {i}") for i in range(4)}
        self.certificates = {i: own.certificate for i, own in self.own.items()}
        self.port = free_port()
        self.outcomes: list[Outcome] = []
        self.served: dict[int, list[int]] = {1: [], 2: [], 3: []}

    def is_over(self, outcome: Outcome, last: int) -> bool:
        return outcome.round >= last

    def parties(self, index: int) -> run.Parties:
        return run.Parties(self.own[index], self.certificates)

    async def server(
        self, last: int = 3, state: bool = False, judge: mphe.Judge | None = None
    ) -> None:
        def then(outcome: Outcome) -> bytes | None:
            self.outcomes.append(outcome)
            return None if self.is_over(outcome, last) else b"model %d" % outcome.round

        await run.serve(
            HOST,
            self.port,
            PARAMETERS,
            self.parties(0),
            b"model 0",
            then,
            judge=judge,
            state_dir=self.directory / "server" if state else None,
            setup_timeout=scaled(20),
            round_timeout=scaled(10),
        )

    async def client(
        self,
        index: int,
        state: bool = False,
        takes_part: Callable[[int], bool] = lambda number: True,
    ) -> None:
        rounds = run.join(
            HOST,
            self.port,
            index,
            PARAMETERS,
            self.parties(index),
            state_dir=self.directory / f"client-{index}" if state else None,
            connect_timeout=scaled(20),
            reconnect_timeout=scaled(20),
        )
        async for begun in rounds:
            self.served[index].append(begun.number)
            if takes_part(begun.number):
                begun.contribute(np.full(LENGTH, index * begun.number))

    def sums(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return round and contributors of each outcome, which must be exact."""
        for outcome in self.outcomes:
            assert isinstance(outcome, mphe.Summed), outcome
            expected = sum(outcome.contributors) * outcome.round
            assert np.array_equal(outcome.total, np.full(LENGTH, expected))
        return [(outcome.round, outcome.contributors) for outcome in self.outcomes]


def test_rounds_over_tls_give_exact_sums(tmp_path: Path) -> None:
    async def play() -> World:
        world = World(tmp_path)
        async with asyncio.timeout(scaled(60)):
            await asyncio.gather(world.server(), *(world.client(i) for i in (1, 2, 3)))
        return world

    world = asyncio.run(play())
    assert world.sums() == [(number, (1, 2, 3)) for number in (1, 2, 3)]
    assert all(served == [1, 2, 3] for served in world.served.values())


def test_a_sum_that_is_implausible_is_not_published(tmp_path: Path) -> None:
    async def play() -> World:
        world = World(tmp_path)
        server = world.server(1, judge=lambda total, count: f"{count} gave {total[0]}")
        async with asyncio.timeout(scaled(60)):
            await asyncio.gather(server, *(world.client(i) for i in (1, 2, 3)))
        return world

    (outcome,) = asyncio.run(play()).outcomes
    assert isinstance(outcome, mphe.Abandoned) and "3 gave 6" in outcome.reason


def test_who_sits_a_round_out_is_awaited_again(tmp_path: Path) -> None:
    """It gives no answer at all: one deadline passes, one round does not wait, the third does."""

    async def play() -> World:
        world = World(tmp_path)
        async with asyncio.timeout(scaled(90)):
            skips = world.client(2, takes_part=lambda number: number != 1)
            await asyncio.gather(world.server(3), world.client(1), skips, world.client(3))
        return world

    first, _, third = asyncio.run(play()).sums()
    assert (first, third) == ((1, (1, 3)), (3, (1, 2, 3)))


def test_a_client_that_is_not_on_the_list_is_not_let_in(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        stranger = run.new_credentials("party 2")
        server = asyncio.create_task(world.server())
        rounds = run.join(
            HOST,
            world.port,
            2,
            PARAMETERS,
            run.Parties(stranger, world.certificates),
            connect_timeout=1.0,
        )
        with pytest.raises(mphe.ParameterError, match="another key for client 2"):
            await anext(aiter(rounds))
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)

    asyncio.run(play())


def test_a_client_that_is_refused_hears_why(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        tasks = [asyncio.create_task(world.client(i)) for i in (1, 3)]
        server = asyncio.create_task(world.server(1))
        other = mphe.SessionParameters(num_clients=3, threshold=2, length=LENGTH, rounds=7)
        rounds = run.join(HOST, world.port, 2, other, world.parties(2), connect_timeout=scaled(20))
        with pytest.raises(mphe.ProtocolError, match="leaves this client out: the join"):
            await anext(aiter(rounds))
        async with asyncio.timeout(scaled(60)):
            await asyncio.gather(server, *tasks)
        assert world.sums() == [(1, (1, 3))]

    asyncio.run(play())


async def server_dies_in_round_two(world: World) -> list[asyncio.Task[None]]:
    """Run until round 2 waits for client 1, stop the server, and return the clients, which wait."""
    under_way = asyncio.Event()

    def takes_part(number: int) -> bool:
        if number == 2:
            under_way.set()
        return number != 2

    parts = [world.client(1, takes_part=takes_part), world.client(2), world.client(3)]
    clients = [asyncio.create_task(part) for part in parts]
    server = asyncio.create_task(world.server(state=True))
    await under_way.wait()
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)
    return clients


def test_a_server_that_died_goes_on_with_the_same_key_and_the_next_number(
    tmp_path: Path,
) -> None:
    """Claim: the round under way is lost, its number is not used again, later sums are exact."""

    async def play() -> World:
        world = World(tmp_path)
        async with asyncio.timeout(scaled(90)):
            clients = await server_dies_in_round_two(world)
            assert world.sums() == [(1, (1, 2, 3))]
            await asyncio.gather(world.server(4, state=True), *clients)
        return world

    world = asyncio.run(play())
    assert world.sums() == [(1, (1, 2, 3)), (3, (1, 2, 3)), (4, (1, 2, 3))]


def test_a_server_that_was_started_again_waits_for_nobody_who_was_excluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weakened: each restart would take the whole time for the set-up, since nobody comes."""
    restore = mphe.Server.restore

    def found_out(state: bytes, **options: Any) -> mphe.Server:
        server = restore(state, **options)
        assert server.aggregator is not None
        server.aggregator._exclude(3, "it cheated")
        return server

    async def play() -> World:
        world = World(tmp_path)
        async with asyncio.timeout(scaled(90)):
            clients = await server_dies_in_round_two(world)
            clients.pop().cancel()
            monkeypatch.setattr(mphe.Server, "restore", staticmethod(found_out))
            async with asyncio.timeout(scaled(15)):
                await asyncio.gather(world.server(4, state=True), *clients)
        return world

    world = asyncio.run(play())
    assert world.sums() == [(1, (1, 2, 3)), (3, (1, 2)), (4, (1, 2))]


def test_a_server_that_died_in_mid_decryption_ends_that_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: what was contributed is not lost, and the sum is had with a newer attempt."""
    take = Aggregator._on_share
    died: list[int] = []

    def die(self: Aggregator, sender: int, message: DecryptionShare) -> list[Output]:
        if message.round == 2 and not died:
            died.append(message.attempt)
            raise ZeroDivisionError("killed by the test")
        return take(self, sender, message)

    monkeypatch.setattr(Aggregator, "_on_share", die)

    async def play() -> World:
        world = World(tmp_path)
        clients = [asyncio.create_task(world.client(index)) for index in (1, 2, 3)]
        async with asyncio.timeout(scaled(90)):
            with pytest.raises(ZeroDivisionError):
                await world.server(state=True)
            assert world.sums() == [(1, (1, 2, 3))]
            await asyncio.gather(world.server(3, state=True), *clients)
        return world

    world = asyncio.run(play())
    assert world.sums() == [(number, (1, 2, 3)) for number in (1, 2, 3)]
    attempts = [end.attempts for end in world.outcomes]
    assert (died, attempts[0], attempts[2]) == ([1], 1, 1) and attempts[1] > 1


def test_a_client_that_died_goes_on_with_its_share(tmp_path: Path) -> None:
    """Claim: with t = 2 and client 3 gone, nothing decrypts without client 1, which came back."""

    async def play() -> World:
        world = World(tmp_path)
        seen = asyncio.Event()

        def takes_part(number: int) -> bool:
            if number == 2:
                seen.set()
            return number != 2

        first = asyncio.create_task(world.client(1, True, takes_part))
        third = asyncio.create_task(world.client(3))
        second = asyncio.create_task(world.client(2))
        server = asyncio.create_task(world.server(4))
        async with asyncio.timeout(scaled(120)):
            await seen.wait()
            for task in (first, third):
                task.cancel()
            await asyncio.gather(first, third, return_exceptions=True)
            await asyncio.gather(server, second, world.client(1, True))
        return world

    world = asyncio.run(play())
    ends = [outcome for outcome in world.outcomes if outcome.round > 2]
    assert any(isinstance(end, mphe.Summed) and end.contributors == (1, 2) for end in ends)


def test_a_state_directory_of_another_session_is_refused(tmp_path: Path) -> None:
    async def play() -> None:
        first = World(tmp_path)
        async with asyncio.timeout(scaled(60)):
            server = first.server(1, state=True)
            await asyncio.gather(server, *(first.client(i) for i in (1, 2, 3)))
            with pytest.raises(run.StateError, match="cannot be used"):
                await World(tmp_path).server(1, state=True)

    asyncio.run(play())


def test_who_loses_its_link_in_every_round_takes_part_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: an honest client with a bad link is slowed down like a storm, and never told off."""
    flapping, made = 20, dict[int, run.Connection]()

    class Seen(run.Connection):
        @classmethod
        async def connect(cls, host: str, port: int, index: int, *more: Any, **named: Any) -> Self:
            made[index] = await super().connect(host, port, index, *more, **named)
            return cast(Self, made[index])

    class Flapping(World):
        def is_over(self, outcome: Outcome, last: int) -> bool:
            return 2 in outcome.contributors and len(self.served[2]) > last

    async def play() -> World:
        world = Flapping(tmp_path)

        def takes_part(number: int) -> bool:
            link = made[2]._server.link
            if len(world.served[2]) <= flapping and number % 2 and link is not None:
                link.abort("a bad link")  # and then it contributes, over the next connection
            return True

        async with asyncio.timeout(scaled(120)):
            await asyncio.gather(
                world.server(flapping),
                world.client(1),
                world.client(2, takes_part=takes_part),
                world.client(3),
            )
        return world

    monkeypatch.setattr(sys.modules["mphe.run.join"], "Connection", Seen)
    world = asyncio.run(play())
    counted = [number for number, contributors in world.sums() if 2 in contributors]
    assert len(counted) >= flapping // 4
    assert all(1 in contributors and 3 in contributors for _, contributors in world.sums())
