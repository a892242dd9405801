"""Sessions with `verify_clients`: proofs as contributions arrive, and who is excluded for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mphe.arithmetic.ring import Integers
from mphe.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.outcomes import Abandoned, Excluded, Summed
from mphe.roles.setup.client import SetupClient
from mphe.roles.verified.proving import ProofChecker, ProvingEncryptor
from mphe.scheme.encryptor import Encryptor
from mphe.server import Server
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Evidence,
    Join,
    NextPledge,
)
from tests.protocol.support import aggregator_of, assert_exact, ready
from tests.simulation import Simulation, snapshot

LIAR = 3


def proving(n: int = 4, t: int = 3, length: int = 60, **options: object) -> Simulation:
    """Return a session whose clients prove what they send, its key confirmed."""
    return ready(n, t, length, **{"verify_clients": True, **options})


@pytest.mark.parametrize("encryption", ["hybrid", "direct"])
@pytest.mark.parametrize("length", [60, 8000])
def test_sums_are_exact_and_nobody_pledges_or_signs(encryption: str, length: int) -> None:
    simulation = proving(length=length, encryption=encryption)
    assert simulation.plan.threshold.blocks == 1 + (encryption == "direct" and length > 60)
    for round in (1, 2):
        updates = simulation.random_updates(seed=round)
        assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    messages = [message for _, _, message in simulation.log]
    assert not any(isinstance(message, NextPledge | Evidence) for message in messages)
    sent = [message for message in messages if isinstance(message, Contribution)]
    assert {(len(m.proof), m.signature) for m in sent} == {(simulation.plan.proof_bytes, b"")}
    asked = [message for message in messages if isinstance(message, DecryptionRequest)]
    assert all(m.evidence == () and m.groups[0].c1 for m in asked if m.round)


# -- what is wrong with a proof --------------------------------------------------------------------


def by_hand(
    simulation: Simulation,
    update: Integers,
    *,
    round: int = 1,
    index: int = LIAR,
    name: bytes = b"",
) -> Contribution:
    """Return a contribution whose proof is made for a round, a client and a session."""
    keys = simulation.keys[LIAR]
    encryptor = Encryptor(keys.plan, keys.key, keys.crs_seed)
    prover = ProvingEncryptor(index, name or keys.transcript, encryptor, keys.key)
    made = prover.encrypt(update, simulation.source(f"by hand/{round}"), round)
    parts = (made.c0, made.c1, made.body, b"", made.proof, b"", keys.transcript)
    return Contribution(1, *parts)


Forge = Callable[[Simulation, Integers], Contribution]


def altered(change: Callable[[bytes], bytes]) -> Forge:
    def forge(simulation: Simulation, update: Integers) -> Contribution:
        honest = by_hand(simulation, update)
        return replace(honest, proof=change(honest.proof))

    return forge


def swapped_blocks(proof: bytes) -> bytes:
    return proof[len(proof) // 2 :] + proof[: len(proof) // 2]


def with_another_c1(simulation: Simulation, update: Integers) -> Contribution:
    first, second = by_hand(simulation, update), by_hand(simulation, update, round=2)
    assert first.c1 != second.c1
    return replace(first, c1=second.c1)


FORGERIES: dict[str, Forge] = {
    "missing": altered(lambda proof: b""),
    "too short": altered(lambda proof: proof[:-1]),
    "too long": altered(lambda proof: proof + b"x"),
    "altered": altered(lambda proof: bytes([proof[0] ^ 1]) + proof[1:]),
    "its blocks swapped": altered(swapped_blocks),
    "of another round": lambda s, update: by_hand(s, update, round=2),
    "of another client": lambda s, update: by_hand(s, update, index=1),
    "of another session": lambda s, update: by_hand(s, update, name=bytes(32)),
    "of another c1": with_another_c1,
}


def lie_in(simulation: Simulation, forge: Forge) -> tuple[Summed | Abandoned, dict[int, Integers]]:
    """Run a round to which the liar contributes by hand."""
    updates = simulation.random_updates()
    others = {index: update for index, update in updates.items() if index != LIAR}
    simulation.begin_round(others)
    simulation.pump()
    simulation.deliver(LIAR, SERVER, forge(simulation, updates[LIAR]))
    simulation.pump()
    return simulation.finish_round(), others


@pytest.mark.parametrize("name", FORGERIES)
def test_who_cannot_prove_its_contribution_is_excluded_by_name(name: str) -> None:
    simulation = proving(length=8000, encryption="direct")
    assert simulation.plan.threshold.blocks == 2
    end, others = lie_in(simulation, FORGERIES[name])
    assert_exact(end, others, 1, 2, 4)
    (event,) = [event for _, event in simulation.events if isinstance(event, Excluded)]
    assert event.client == LIAR and event.reason.startswith("its contribution is not proven: ")
    assert "\n" not in event.reason


def test_a_true_proof_by_hand_is_taken() -> None:
    simulation = proving()
    end, others = lie_in(simulation, by_hand)
    assert isinstance(end, Summed) and end.contributors == (1, 2, 3, 4)
    assert not any(isinstance(event, Excluded) for _, event in simulation.events)
    assert len(others) == 3


def test_whoever_is_excluded_takes_no_further_part() -> None:
    simulation = proving()
    lie_in(simulation, FORGERIES["altered"])
    aggregator = aggregator_of(simulation)
    assert aggregator.members == {1, 2, 4}
    stranger = SetupClient(
        *(LIAR, simulation.plan, simulation.identities[LIAR], simulation.roster),
        simulation.hedge("late"),
    )
    (send,) = stranger.start()
    join = send.message  # type: ignore[union-attr]
    assert isinstance(join, Join)
    share = DecryptionShare(1, 1, b"", simulation.session.transcript)
    honest = by_hand(simulation, simulation.random_updates()[LIAR])
    for message in (join, share, honest, replace(honest, round=2)):
        with pytest.raises(RemoteProtocolError, match="client 3 is excluded: its contribution"):
            aggregator.receive(LIAR, message)
    # Nor is it sent anything, or asked to decrypt, whoever says that it is there.
    before = len(simulation.log)
    updates = simulation.random_updates((1, 2, 4))
    assert_exact(simulation.run_round(updates, present=(1, 2, 3, 4)), updates, 1, 2, 4)
    assert not [entry for entry in simulation.log[before:] if LIAR in entry[:2]]


def test_an_exclusion_survives_the_server() -> None:
    simulation = proving()
    lie_in(simulation, FORGERIES["altered"])
    restored = Server.restore(simulation.host.state)
    assert restored.members == {1, 2, 4}
    assert restored.state == simulation.host.state
    again = codec.encode(by_hand(simulation, simulation.random_updates()[LIAR]))
    with pytest.raises(RemoteProtocolError, match="client 3 is excluded: its contribution"):
        restored.receive(LIAR, again)


def test_the_last_that_is_awaited_ends_the_round_by_its_lie() -> None:
    simulation = proving()
    simulation.begin_round({})
    simulation.pump()
    aggregator = aggregator_of(simulation)
    updates = simulation.random_updates()
    for index in (1, 2, 4):
        made = simulation.contributors[index].encrypt(updates[index])
        simulation.push(index, simulation.contributors[index].contribute(1, made))
    simulation.pump()
    assert aggregator.waiting_for() == (LIAR,)
    simulation.deliver(LIAR, SERVER, FORGERIES["missing"](simulation, updates[LIAR]))
    simulation.pump()
    end = simulation.finish_round()
    assert isinstance(end, Summed) and end.contributors == (1, 2, 4)


# -- what is not a lie -----------------------------------------------------------------------------


def test_what_is_cheap_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duplicates, strangers, other rounds and what does not parse cost the server no proof."""
    simulation = proving()
    simulation.begin_round({})
    simulation.pump()
    aggregator = aggregator_of(simulation)
    honest = by_hand(simulation, simulation.random_updates()[LIAR])
    aggregator.receive(LIAR, honest)

    def never(*_: object) -> None:
        raise AssertionError("a proof is checked")

    monkeypatch.setattr(ProofChecker, "check", never)
    before = snapshot(aggregator)
    for sender, message in (
        (LIAR, honest),
        (1, replace(honest, c0=honest.c0[:-1])),
        (1, replace(honest, c1=honest.c1[:-1])),
        (1, replace(honest, body=honest.body[:-1])),
        (1, replace(honest, round=2)),
        (1, replace(honest, transcript=bytes(32))),
    ):
        with pytest.raises(RemoteProtocolError):
            aggregator.receive(sender, message)
        assert snapshot(aggregator) == before


def test_what_does_not_parse_costs_a_place_in_the_round_only() -> None:
    simulation = proving()
    simulation.begin_round({})
    simulation.pump()
    aggregator = aggregator_of(simulation)
    honest = by_hand(simulation, simulation.random_updates()[LIAR])
    with pytest.raises(MalformedMessage):
        aggregator.receive(LIAR, replace(honest, body=b""))
    assert aggregator.members == {1, 2, 3, 4}
    aggregator.receive(LIAR, honest)


def test_a_client_never_sends_what_it_encrypted_for_another_round() -> None:
    """It would be excluded for it."""
    simulation = proving()
    simulation.begin_round({})
    simulation.pump()
    update = simulation.random_updates()[1]
    contributor = simulation.contributors[1]
    old = contributor.encrypt(update)
    simulation.deadline()
    simulation.begin_round({})
    simulation.pump()
    assert contributor.round == 2
    with pytest.raises(LocalProtocolError, match="encrypted for round 1"):
        contributor.contribute(2, old)
    assert contributor.contribute(2, contributor.encrypt(update))


def test_the_server_adds_nothing_that_is_not_proven() -> None:
    simulation = proving()
    simulation.begin_round({})
    simulation.pump()
    aggregator: Aggregator = aggregator_of(simulation)
    update = simulation.random_updates()[1]
    made = simulation.contributors[1].encrypt(update)
    aggregator.receive(1, simulation.contributors[1].contribute(1, made)[0].message)  # type: ignore[union-attr]
    before = aggregator._sums.record()
    aggregator.receive(LIAR, FORGERIES["altered"](simulation, update))
    assert before == aggregator._sums.record()
