"""Clients and servers that were started again, in one process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mphe.errors import (
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    RefusedDecryption,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.roles.machine import Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup import returning
from mphe.roles.setup.client import Keyed, Opened, SetupClient, State
from mphe.scheme.encryptor import Encryptor
from mphe.wire.messages import SERVER, DecryptionRequest, DecryptionShare, Join, Ready, SessionOpen
from tests.protocol.support import aggregator_of, assert_exact, ready
from tests.simulation import Simulation, rephrased, snapshot

OPENED = Memory(confirming=False)


def requests(simulation: Simulation) -> tuple[DecryptionRequest, DecryptionRequest]:
    """Return a request for round 1 and one for a second aggregate of it."""
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    fewer = {i: made[i] for i in (1, 2)}
    return simulation.request(made), simulation.request(fewer)


def started_again(simulation: Simulation, index: int, memory: Memory) -> Decryptor:
    return Decryptor(simulation.keys[index], memory=memory)


def test_the_journal_is_told_before_the_answer_and_memory_is_what_it_was_told() -> None:
    simulation = ready(3, 2)
    told: list[Memory] = []
    decryptor = Decryptor(simulation.keys[1], told.append, OPENED)
    request, _ = requests(simulation)
    decryptor.receive(SERVER, request)
    assert len(told) == 1
    assert told[0] == decryptor.memory
    assert (told[0].round, told[0].attempt, told[0].spent) == (1, 1, 1)
    assert len(told[0].digest) == 32
    # An exact repeat costs nothing, so there is nothing new to write.
    decryptor.receive(SERVER, request)
    assert len(told) == 1


def test_without_a_journal_that_can_be_written_there_is_no_answer() -> None:
    simulation = ready(3, 2)
    works = [False]

    def journal(_: Memory) -> None:
        if not works[0]:
            raise OSError(28, "No space left on device")

    decryptor = Decryptor(simulation.keys[1], journal, OPENED)
    request, second = requests(simulation)
    with pytest.raises(RefusedDecryption, match="cannot write"):
        decryptor.receive(SERVER, request)
    assert decryptor.memory == OPENED
    works[0] = True
    assert decryptor.receive(SERVER, request)
    with pytest.raises(RefusedDecryption, match="another aggregate"):
        decryptor.receive(SERVER, second)


def test_what_was_refused_before_a_restart_is_refused_after_it() -> None:
    simulation = ready(3, 2, max_attempts=2)
    request, second = requests(simulation)
    decryptor = started_again(simulation, 1, OPENED)
    decryptor.receive(SERVER, request)
    decryptor.receive(SERVER, replace(request, attempt=2, active=(1, 3)))
    memory = decryptor.memory
    assert memory.spent == 2

    def refuse(reason: str, asked: DecryptionRequest) -> None:
        again = started_again(simulation, 1, memory)
        with pytest.raises(RefusedDecryption, match=reason):
            again.receive(SERVER, asked)
        assert again.memory == memory

    refuse("another aggregate", second)
    refuse("another aggregate", replace(second, attempt=2))
    refuse("attempt 1 is not newer", request)
    refuse("attempt 2 is not newer", replace(request, attempt=2, active=(1, 2)))
    refuse("at most 2", replace(request, attempt=3))
    refuse("the key is confirmed once", rephrased(request, round=0, contributors=(), c1=b""))
    later = started_again(simulation, 1, replace(memory, round=9))
    with pytest.raises(RefusedDecryption, match="not newer than round 9"):
        later.receive(SERVER, request)
    spent = started_again(simulation, 1, replace(memory, spent=simulation.plan.answers))
    with pytest.raises(RefusedDecryption, match="budget"):
        spent.receive(SERVER, replace(request, round=2))
    assert started_again(simulation, 1, memory).receive(SERVER, replace(request, round=2))


def returned(simulation: Simulation, index: int) -> SetupClient:
    """Return a client that was started again with its keys."""
    hedge, identity = simulation.hedge("returned"), simulation.identities[index]
    stage = Keyed(simulation.keys[index])
    return SetupClient(index, simulation.plan, identity, simulation.roster, hedge, stage)


def come_back(simulation: Simulation, index: int, aggregator: Aggregator) -> None:
    """Start a client again with its keys, and let the server take it back."""
    client, keys = returned(simulation, index), simulation.keys[index]
    announced = returning.announce(keys, simulation.identities[index])
    (opened,) = aggregator.receive(index, announced)
    assert isinstance(opened, Send) and opened.receiver == index
    (event,) = client.receive(SERVER, opened.message)
    assert isinstance(event, Opened) and client.state is State.OPEN
    encryptor = Encryptor(simulation.plan, keys.key, keys.crs_seed)
    hedge = simulation.hedge(f"again/{index}/{aggregator.round}")
    simulation.contributors[index] = Contributor(
        index, encryptor, transcript=keys.transcript, hedge=hedge
    )
    memory = simulation.decryptors[index].memory
    simulation.decryptors[index] = Decryptor(keys, memory=memory)


def test_a_client_that_comes_back_contributes_and_decrypts() -> None:
    simulation = ready(3, 3)
    for _ in range(2):
        updates = simulation.random_updates()
        assert_exact(simulation.run_round(updates), updates, 1, 2, 3)
        come_back(simulation, 2, aggregator_of(simulation))


def test_a_server_that_was_started_again_goes_on_with_the_same_keys() -> None:
    simulation = ready(3, 3)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)
    again = Aggregator(simulation.session)
    again.resume_at(2)
    simulation.aggregator = again
    for index in simulation.identities:
        come_back(simulation, index, again)
    updates = simulation.random_updates()
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3)
    assert again.round == 3


def test_a_number_that_was_used_before_the_restart_is_refused_by_the_decryptors() -> None:
    """Why a resumed server skips the round in flight."""
    simulation = ready(3, 3)
    simulation.run_round(simulation.random_updates())
    again = Aggregator(simulation.session)
    simulation.aggregator = again
    for index in simulation.identities:
        come_back(simulation, index, again)
    end = simulation.run_round(simulation.random_updates())
    assert not hasattr(end, "total")
    assert any("another aggregate" in str(error) for _, error in simulation.refusals)


def test_the_server_knows_who_came_back_without_a_share() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    keys = replace(simulation.keys[1], share=None)
    aggregator.receive(1, returning.announce(keys, simulation.identities[1]))
    aggregator.start_round(b"model", simulation.identities)
    assert aggregator._able == {2, 3}
    aggregator.receive(1, returning.announce(simulation.keys[1], simulation.identities[1]))
    assert aggregator._able == {1, 2, 3}


def test_a_client_that_joined_without_its_share_and_then_finds_it_decrypts_again() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    aggregator.receive(1, Join(1, b"", b"", b""))
    assert aggregator._able == {2, 3}
    come_back(simulation, 1, aggregator)
    assert aggregator._able == {1, 2, 3}


def test_keys_of_another_session_or_client_are_refused() -> None:
    simulation, other = ready(3, 2), ready(3, 2, label="other")
    aggregator = aggregator_of(simulation)
    foreign = returning.announce(other.keys[1], simulation.identities[1])
    stolen = returning.announce(simulation.keys[1], simulation.identities[2])
    # What was signed when the key was made does not say that its client is back.
    (made,) = (m for s, _, m in simulation.log if s == 1 and isinstance(m, Ready))
    for message in (foreign, stolen, made, Ready(b"", ())):
        with pytest.raises(MalformedMessage, match="another session"):
            aggregator.receive(1, message)


def test_a_returning_client_takes_nothing_but_the_opening_of_the_session() -> None:
    simulation = ready(3, 2)
    client = returned(simulation, 1)
    with pytest.raises(LocalProtocolError):
        client.start()
    with pytest.raises(UnexpectedSender):
        client.receive(2, SessionOpen((1, 2), ()))
    with pytest.raises(RemoteProtocolError, match="not expected"):
        client.receive(SERVER, simulation.session.welcome)
    with pytest.raises(RemoteProtocolError, match="0 decryptors signed"):
        client.receive(SERVER, SessionOpen((1, 2), ()))
    assert client.state is State.READY


def test_a_round_is_resumed_only_between_rounds_and_never_earlier() -> None:
    simulation = ready(3, 3)
    aggregator = aggregator_of(simulation)
    aggregator.resume_at(4)
    assert aggregator.round == 4
    with pytest.raises(LocalProtocolError):
        aggregator.resume_at(3)
    simulation.begin_round(simulation.random_updates())
    assert aggregator.round == 5
    before = snapshot(aggregator)
    with pytest.raises(LocalProtocolError):
        aggregator.resume_at(7)
    assert snapshot(aggregator) == before


# -- exact repeats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "direct"])
def test_an_exact_repeat_gets_the_same_bytes_after_a_restart(mode: str) -> None:
    simulation = ready(3, 2, encryption=mode)
    request, _ = requests(simulation)
    decryptor = started_again(simulation, 1, OPENED)
    answer = decryptor.receive(SERVER, request)
    for _ in range(2):
        decryptor = started_again(simulation, 1, decryptor.memory)
        assert decryptor.receive(SERVER, request) == answer
    assert decryptor.memory.spent == 1


def test_an_exact_repeat_is_answered_where_budget_and_journal_say_no() -> None:
    simulation = ready(3, 2)
    request, _ = requests(simulation)
    decryptor = started_again(simulation, 1, OPENED)
    answer = decryptor.receive(SERVER, request)

    def full(_: Memory) -> None:
        raise OSError(28, "No space left on device")

    spent = replace(decryptor.memory, spent=simulation.plan.answers)
    again = Decryptor(simulation.keys[1], full, spent)
    assert again.receive(SERVER, request) == answer
    with pytest.raises(RefusedDecryption, match="budget"):
        again.receive(SERVER, replace(request, attempt=2))
    writes_nothing = Decryptor(simulation.keys[1], full, decryptor.memory)
    assert writes_nothing.receive(SERVER, request) == answer
    with pytest.raises(RefusedDecryption, match="cannot write"):
        writes_nothing.receive(SERVER, replace(request, attempt=2))


def test_a_repeated_confirmation_gets_the_same_bytes_after_the_session_is_open() -> None:
    simulation = ready(3, 2)
    decryptor = simulation.decryptors[3]
    (asked,) = [m for _, r, m in simulation.log if r == 3 and isinstance(m, DecryptionRequest)]
    first = next(m for s, _, m in simulation.log if s == 3 and isinstance(m, DecryptionShare))
    (again,) = decryptor.receive(SERVER, asked)
    assert isinstance(again, Send) and again.message == first
    with pytest.raises(RefusedDecryption, match="before all rounds"):
        decryptor.receive(SERVER, replace(asked, attempt=asked.attempt + 1))


def test_a_client_comes_back_once_a_connection_and_round() -> None:
    """Attack: signs of life without end, each of which costs a check and an answer of n vouches."""
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    sign = returning.announce(simulation.keys[1], simulation.identities[1])
    for _ in range(3):
        assert aggregator.receive(1, sign)
        with pytest.raises(DuplicateMessage, match="over this connection"):
            aggregator.receive(1, sign)
        aggregator.lost(1)
    assert aggregator.receive(1, sign)
    aggregator.start_round(b"", [1, 2, 3])
    assert aggregator.receive(1, sign)
    with pytest.raises(DuplicateMessage):
        aggregator.receive(1, sign)
