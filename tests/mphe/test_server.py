"""mphe.Server made anew from its state after every step, beside one that lives on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from operator import methodcaller
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mphe
from mphe.roles.setup.server import SetupState
from mphe.wire import codec
from mphe.wire.messages import (
    Commit,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Join,
    Message,
    NextPledge,
    Ready,
    Refusal,
    Reveal,
)
from tests.mphe.sessions import MODES, Session, each_mode

DEADLINE = methodcaller("deadline_passed")


def opened(mode: dict[str, Any]) -> Session:
    session = Session(mode, False, server_anew=True)
    session.open()
    return session


def come_back(session: Session, index: int) -> None:
    session.act(index, mphe.Client.reconnected)
    session.deliver()


class Nth:
    """True at the n-th message of a type that the server is about to receive."""

    def __init__(self, kind: type, count: int) -> None:
        self._kind, self._left = kind, count
        self.sender = 0

    def __call__(self, sender: int, receiver: int, message: Message) -> bool:
        if receiver == mphe.SERVER and isinstance(message, self._kind):
            self._left -= 1
            self.sender = sender
            return self._left == 0
        return False


def is_share_of_1(sender: int, receiver: int, message: Message) -> bool:
    return sender == 1 and isinstance(message, DecryptionShare)


def forge(session: Session) -> None:
    """Deliver a decryption share of nothing instead of the one that comes next."""
    sender, _, data = session.mail.popleft()
    share = codec.decode(data, sender)
    assert isinstance(share, DecryptionShare)
    forged = codec.encode(replace(share, share=bytes(len(share.share))))
    session.serve(methodcaller("receive", sender, forged))


def assert_last_sum(session: Session, round: int, *clients: int) -> None:
    summed = session.events_of(mphe.SERVER, mphe.Summed)[-1]
    assert (summed.round, summed.contributors) == (round, clients)
    assert np.array_equal(summed.total, sum(session.updates[index] for index in clients))


# -- rounds ------------------------------------------------------------------------------------


@each_mode
def test_losses_in_the_middle_of_rounds_survive_any_number_of_restarts(
    mode: dict[str, Any],
) -> None:
    session, robust = opened(mode), mode.get("robust", True)
    (ready,) = session.events_of(mphe.SERVER, mphe.SessionReady)
    assert len(ready.qualified) == 5 and ready.missing == ready.unconfirmed == ()
    # One client is lost before it contributes,
    session.begin_round(seed=1)
    session.deliver(Nth(Contribution, 3))
    session.lose(5)
    session.deliver()
    if robust:
        assert_last_sum(session, 1, 1, 2, 3, 4)
    come_back(session, 5)
    # and one decryptor when another one has answered.
    session.begin_round(seed=2)
    second = Nth(DecryptionShare, 2)
    session.deliver(second)
    session.lose(second.sender)
    session.deliver()
    if robust:
        assert_last_sum(session, 2, 1, 2, 3, 4, 5)
        assert session.events_of(mphe.SERVER, mphe.Summed)[-1].attempts == 2
    else:
        abandoned = session.events_of(mphe.SERVER, mphe.Abandoned)
        assert [event.begun for event in abandoned] == [False]
        assert session.events_of(mphe.SERVER, mphe.Kept) == [mphe.Kept(2, (second.sender,))]
    come_back(session, second.sender)
    if not robust:
        session.deliver()
        assert_last_sum(session, 2, 1, 2, 3, 4, 5)
    session.round(seed=3)
    assert_last_sum(session, 3, 1, 2, 3, 4, 5)


@each_mode
def test_clients_and_server_may_be_made_anew_together(mode: dict[str, Any]) -> None:
    session = Session(mode, True, server_anew=True)
    session.open()
    session.round(seed=1)
    assert_last_sum(session, 1, 1, 2, 3, 4, 5)


def test_who_missed_deadlines_is_remembered() -> None:
    session = opened(MODES["hybrid"])
    awaited = []
    for seed in range(1, 5):
        session.begin_round(seed=seed)
        del session.updates[3]
        session.deliver()
        awaited.append(session.server.waiting_for())
        if session.server.waiting_for():
            session.serve(DEADLINE)
            session.deliver()
        assert_last_sum(session, seed, 1, 2, 4, 5)
    assert awaited == [(3,), (), (3,), ()]


def test_who_joined_or_refused_is_remembered() -> None:
    session = opened(MODES["hybrid"])
    session.begin_round(seed=1)
    first = Nth(DecryptionShare, 1)
    session.deliver(first)
    # A decryptor that failed is asked last from then on, even in the next round,
    session.cut(first.sender)
    name = session.server.session.transcript  # type: ignore[union-attr]
    refusal = codec.encode(Refusal(1, 1, "no", name))
    session.serve(methodcaller("receive", first.sender, refusal))
    session.deliver()
    assert_last_sum(session, 1, 1, 2, 3, 4, 5)
    session.begin_round(seed=2)
    asked = Nth(DecryptionShare, 3)
    session.deliver(asked)
    assert first.sender not in session.server.waiting_for()
    session.deliver()
    # and one that lost its share never again.
    session.clients[2] = mphe.Client(2, session.parameters, session.identities[2], session.roster)
    session.act(2, mphe.Client.start)
    (join,) = [data for sender, _, data in session.mail if sender == 2]
    session.deliver()
    with pytest.raises(mphe.DuplicateMessage, match="joined in this round before"):
        session.server.receive(2, join)
    session.round(seed=3)
    assert_last_sum(session, 3, 1, 2, 3, 4, 5)
    assert not session.clients[2].can_decrypt


def test_under_whom_a_sum_was_wrong_survives_any_number_of_restarts() -> None:
    """Attack: client 1 sends decryption shares that are no shares, twice.

    Claim: a server that was started again in between has others answer. It names nobody: each of
    the five contributors could have undone what it did, as a decryptor.
    Weakened: one that forgets whom it asked asks the same again.
    """
    session = opened(MODES["hybrid"])
    session.begin_round()
    for _ in range(2):
        session.deliver(is_share_of_1)
        forge(session)
    session.deliver()
    assert_last_sum(session, 1, 1, 2, 3, 4, 5)
    assert session.events_of(mphe.SERVER, mphe.Summed)[-1].attempts == 3
    assert not session.events_of(mphe.SERVER, mphe.Excluded)
    assert session.server.members == {1, 2, 3, 4, 5}


def test_who_contributed_early_who_refused_and_who_fell_is_remembered_until_the_round_ends() -> (
    None
):
    session = opened(MODES["hybrid"])
    session.begin_round()
    session.mail.reverse()
    session.deliver(Nth(DecryptionShare, 1))
    assert session.server.waiting_for() == (3, 4, 5)  # they were the first to contribute
    name = session.server.session.transcript  # type: ignore[union-attr]
    session.cut(5)
    session.serve(methodcaller("receive", 5, codec.encode(Refusal(1, 1, "no", name))))
    session.lose(4)
    session.lose(3)
    assert session.server.waiting_for() == (3, 4)  # not for 5, which refused
    session.serve(methodcaller("deadline_passed"))
    (abandoned,) = session.events_of(mphe.SERVER, mphe.Abandoned)
    assert (abandoned.attempts, abandoned.missing) == (3, (3, 4, 5))


def test_a_server_that_died_in_a_round_waits_for_the_pledges_of_who_comes_back() -> None:
    """A round's pledges are used up with its number, whether anybody heard of it."""
    session = opened(MODES["verified"])
    session.round(seed=1)
    session.begin_round(seed=2)
    session.cut(*session.clients)
    session.serve(methodcaller("abandon_round", "the server was started again"))
    session.cut(*session.clients)
    for index in session.clients:
        session.act(index, mphe.Client.reconnected)
        assert session.server.waiting_for() == ()
        session.deliver(Nth(NextPledge, 1))
        assert session.server.waiting_for() == (index,)
        session.deliver()
    session.round(seed=3)
    assert_last_sum(session, 3, 1, 2, 3, 4, 5)


# -- the set-up --------------------------------------------------------------------------------


@pytest.mark.parametrize("by_deadline", [False, True], ids=["lost", "late"])
@pytest.mark.parametrize("kind", [Join, Commit, Reveal, Ready, DecryptionShare])
def test_losses_in_every_stage_of_the_set_up_survive(kind: type, by_deadline: bool) -> None:
    session = Session(MODES["hybrid"], False, server_anew=True)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    third = Nth(kind, 3)
    session.deliver(third)
    gone = third.sender
    session.cut(gone)
    if by_deadline:
        session.deliver()
        assert session.server.waiting_for() == (gone,)
        session.serve(DEADLINE)
    else:
        session.serve(methodcaller("lost", gone))
    session.deliver()
    (ready,) = session.events_of(mphe.SERVER, mphe.SessionReady)
    assert ready.missing == (gone,)
    assert len(ready.qualified) == (4 if kind in (Join, Commit, Reveal) else 5)
    session.round({1, 2, 3, 4, 5} - {gone}, seed=1)
    assert_last_sum(session, 1, *sorted({1, 2, 3, 4, 5} - {gone}))


@pytest.mark.parametrize("kind", [Commit, Reveal, Ready, DecryptionShare])
def test_who_joined_during_the_set_up_is_welcomed_by_the_server_that_ends_it(kind: type) -> None:
    session = Session(MODES["hybrid"], False, server_anew=True)
    for index in (1, 2, 3, 4):
        session.act(index, mphe.Client.start)
    session.deliver()
    session.serve(DEADLINE)
    session.deliver(Nth(kind, 2))
    session.act(5, mphe.Client.start)
    session.deliver()
    assert session.clients[5].is_open and not session.clients[5].can_decrypt
    session.round(seed=1)
    assert_last_sum(session, 1, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("kind", [Join, Commit, Reveal, Ready, DecryptionShare])
def test_a_set_up_that_failed_has_a_state_and_waits_for_nobody(kind: type) -> None:
    session = Session(MODES["not robust"], False, server_anew=True)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    third = Nth(kind, 3)
    session.deliver(third)
    session.lose(third.sender, 1 if third.sender != 1 else 2)
    if session.server.waiting_for():
        session.deliver()
    (abandoned,) = session.events_of(mphe.SERVER, mphe.SetupAbandoned)
    assert third.sender in abandoned.error.missing
    server = mphe.Server.restore(session.server.state)
    assert server.setup.state is SetupState.FAILED and server.waiting_for() == ()
    state = server.state
    with pytest.raises(mphe.RemoteProtocolError):
        server.receive(1, codec.encode(Ready(bytes(64), ())))
    assert server.state == state
    with pytest.raises(mphe.LocalProtocolError, match="SessionReady"):
        server.start_round(b"model", [1])


def is_attempt_4(sender: int, receiver: int, message: Message) -> bool:
    return isinstance(message, DecryptionRequest) and message.attempt == 4


@pytest.mark.parametrize("lost", [(), (5,)], ids=["all there", "one of them lost"])
def test_other_fixed_members_are_tried_by_a_server_that_was_made_anew(
    lost: tuple[int, ...],
) -> None:
    """Client 1 answers the confirmation with no shares: no set that it is in decrypts."""
    session = Session(MODES["hybrid"], False, server_anew=True)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    for _ in range(3):
        session.deliver(is_share_of_1)
        forge(session)
    session.deliver(is_attempt_4)
    if lost:
        session.lose(*lost)
    while session.mail:
        session.deliver(is_share_of_1)
        if session.mail:
            forge(session)
    (ready,) = session.events_of(mphe.SERVER, mphe.SessionReady)
    assert (ready.unconfirmed, ready.missing) == ((1,), lost)
    assert ready.decryptors == tuple(sorted({2, 3, 4, 5} - {*lost}))


def test_attempts_of_the_confirmation_are_never_used_twice() -> None:
    session = Session(MODES["hybrid"], False, server_anew=True)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    session.deliver(Nth(DecryptionShare, 1))
    session.lose(5)  # the newest set goes,
    session.lose(1)  # and then all
    attempts = {
        message.attempt
        for message in (codec.decode(data, sender) for sender, _, data in session.mail)
        if isinstance(message, DecryptionRequest)
    }
    assert attempts == {4}
    session.deliver()
    (ready,) = session.events_of(mphe.SERVER, mphe.SessionReady)
    assert (ready.decryptors, ready.missing) == ((2, 3, 4), (1, 5))


# -- states as bytes ---------------------------------------------------------------------------


def test_what_is_refused_changes_nothing_not_even_the_serial() -> None:
    session = opened(MODES["verified"])
    session.begin_round(seed=1)
    counted = Nth(Contribution, 2)
    session.deliver(counted)
    server, name = session.server, session.server.session.transcript  # type: ignore[union-attr]
    before = server.state
    refused: list[tuple[int, bytes]] = [
        (1, b"\xc1"),
        (9, codec.encode(DecryptionShare(1, 1, b"", name))),
        (1, codec.encode(Contribution(2, b"", b"", b"", b"", transcript=name))),
        (2, codec.encode(Contribution(1, b"", b"", b"", b"", transcript=name))),
        (3, codec.encode(Join(4, b"", b"", b""))),
    ]
    for sender, data in refused:
        with pytest.raises(mphe.RemoteProtocolError):
            server.receive(sender, data)
        assert server.state == before
    for call in (methodcaller("start_round", b"model", [1]), methodcaller("resume_at", 3)):
        with pytest.raises(mphe.LocalProtocolError):
            call(server)
        assert server.state == before
    assert mphe.serial_of(before) > 0


def test_a_number_that_was_used_up_elsewhere_is_a_change() -> None:
    session = opened(MODES["hybrid"])
    server = session.server
    serial = mphe.serial_of(server.state)
    server.resume_at(4)
    assert mphe.serial_of(server.state) == serial + 1
    assert mphe.Server.restore(server.state).round == 4


def test_integers_of_numpy_are_as_good_as_any() -> None:
    session = opened(MODES["hybrid"])
    session.begin_round(np.arange(1, 6), seed=1)
    session.lose(np.int64(4))  # type: ignore[arg-type]
    session.deliver()
    assert_last_sum(session, 1, 1, 2, 3, 5)


STAGES = (
    *("joining", "committing", "revealing", "readying", "confirming"),
    *("idle", "collecting", "decrypting"),
)


@pytest.fixture(scope="module")
def kept() -> list[bytes]:
    """Return a state of each stage, with and without verified aggregates."""
    states = []
    for mode in (MODES["hybrid"], MODES["verified"]):
        session = opened(mode)
        session.round(seed=1)
        assert set(session.states) >= set(STAGES)
        states += [session.states[stage] for stage in STAGES]
    return states


@settings(max_examples=100, deadline=None)
@given(which=st.integers(0, 2 * len(STAGES) - 1), end=st.integers(0, 1 << 24))
def test_truncated_states_are_refused(kept: list[bytes], which: int, end: int) -> None:
    state = kept[which]
    with pytest.raises(mphe.EncodingError):
        mphe.Server.restore(state[: end % len(state)])
    with pytest.raises(mphe.EncodingError):
        mphe.Server.restore(state + state[:1])


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 2 * len(STAGES) - 1),
    where=st.sampled_from(("head", "tail", "anywhere")),
    place=st.integers(0, 1 << 24),
    change=st.integers(1, 255),
)
def test_changed_states_give_a_server_or_an_encoding_error(
    kept: list[bytes], which: int, where: str, place: int, change: int
) -> None:
    changed = bytearray(kept[which])
    # Most of a state are long elements: look at its heads and lengths above all.
    span = len(changed) if where == "anywhere" else min(1000, len(changed))
    place %= span
    changed[-1 - place if where == "tail" else place] ^= change
    with suppress(mphe.EncodingError):
        server = mphe.Server.restore(bytes(changed))
        assert mphe.Server.restore(server.state).state == server.state


def swap_bodies(session: Session, culprit: int) -> None:
    """Deliver all mail; the culprit contributes bodies that its key does not match."""

    def is_forged(sender: int, receiver: int, message: Message) -> bool:
        return sender == culprit and isinstance(message, Contribution)

    session.deliver(is_forged)
    while session.mail:
        sender, receiver, data = session.mail.popleft()
        message = codec.decode(data, sender)
        assert isinstance(message, Contribution)
        forged = replace(message, body=message.body[::-1])
        session.mail.appendleft((sender, receiver, codec.encode(forged)))
        session.deliver(Nth(Contribution, 2))
        session.deliver(is_forged)


@pytest.mark.parametrize(
    "mode",
    [
        {"threshold": 3, "min_contributors": 3, "max_attempts": 8},
        {"threshold": 3, "min_contributors": 2, "max_groups": 2, "max_attempts": 8},
        pytest.param(
            {"threshold": 4, "verified": True, "max_corrupt": 1, "max_attempts": 8},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["sitting out", "groups", "verified"],
)
def test_what_was_wrong_and_who_was_found_out_survive_any_number_of_restarts(
    mode: dict[str, Any],
) -> None:
    session = opened(mode)
    for seed in range(1, 9):
        if session.events_of(mphe.SERVER, mphe.Excluded):
            break
        session.begin_round(seed=seed)
        swap_bodies(session, 2)
    (excluded,) = session.events_of(mphe.SERVER, mphe.Excluded)
    assert excluded.client == 2 and session.server.members == {1, 3, 4, 5}
    session.round(seed=9)
    (ended,) = [
        e for e in session.events_of(mphe.SERVER, mphe.Summed) if e.round == session.server.round
    ]
    assert 2 not in ended.contributors
