"""mphe.Client and mphe.Server: bytes in, bytes out, and made anew between any two messages."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mphe
from mphe.roles import blob
from mphe.wire import codec
from mphe.wire.messages import Contribution, RoundStart
from tests.mphe.sessions import LENGTH, MODES, Session, each_mode, receive


@each_mode
@pytest.mark.parametrize("anew", [False, True], ids=["live", "anew"])
def test_sums_are_exact_whether_clients_live_or_are_made_anew(
    mode: dict[str, Any], anew: bool
) -> None:
    session = Session(mode, anew)
    session.open()
    (ready,) = session.events_of(mphe.SERVER, mphe.SessionReady)
    assert len(ready.qualified) == 5 and ready.missing == ready.unconfirmed == ()
    for number in (1, 2):
        summed = session.round(seed=number)
        assert summed.round == number and summed.contributors == (1, 2, 3, 4, 5)
        assert np.array_equal(summed.total, sum(session.updates.values()))
    ended = session.events_of(3, mphe.RoundEnded)
    assert [(event.round, event.counted) for event in ended] == [(1, True), (2, True)]


@each_mode
def test_a_server_goes_on_from_its_state(mode: dict[str, Any]) -> None:
    session = Session(mode, True)
    session.open()
    session.round()
    session.server = mphe.Server.restore(session.server.state)
    for index, client in session.clients.items():
        session.post(index, client.reconnected())
    session.deliver()
    summed = session.round(seed=1)
    assert summed.round == 2
    assert np.array_equal(summed.total, sum(session.updates.values()))


def in_round(mode: dict[str, Any]) -> tuple[Session, bytes]:
    """Return a session whose client 1 has been told to train, and what told it so."""
    session = Session(mode, False)
    session.open()
    step = session.server.start_round(b"model", range(1, 6))
    told = next(data for receiver, data in step.mail if receiver == 1)
    session.clients[1].receive(told)
    return session, told


@pytest.mark.parametrize("mode", [MODES["hybrid"], MODES["verified"]], ids=["hybrid", "verified"])
def test_a_state_that_contributed_never_encrypts_a_second_time(mode: dict[str, Any]) -> None:
    """Attack: a queue delivers twice, or a process dies between storing and sending.

    Claim: the second update is answered with the bytes of the first, before and after a restart.
    Weakened: a state from before the contribution encrypts anew, which is why states are stored
    first and swapped by their serial.
    """
    session, _ = in_round(mode)
    client = session.clients[1]
    before = client.state
    (sent,) = client.contribute(1, np.full(LENGTH, 1)).mail
    other = np.full(LENGTH, 2)
    restored = mphe.Client.restore(client.state, session.identities[1])
    assert client.contribute(1, other).mail == [sent]
    assert restored.contribute(1, other).mail == [sent] == restored.outbox
    rolled_back = mphe.Client.restore(before, session.identities[1])
    assert rolled_back.contribute(1, other).mail != [sent]
    assert mphe.serial_of(before) < mphe.serial_of(client.state)


def test_a_pledge_s_randomness_is_gone_once_it_is_used() -> None:
    session, _ = in_round(MODES["verified"])
    client = session.clients[1]
    contributor = client.contributor
    assert contributor is not None
    seed = contributor.progress.pledged.current
    assert len(seed) == 32 and seed in client.state
    client.contribute(1, np.full(LENGTH, 1))
    assert seed not in client.state
    assert contributor.progress.pledged.next not in (b"", seed)


def test_s_i_is_gone_once_its_shares_are_dealt() -> None:
    session = Session(MODES["hybrid"], False)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    seen: set[bytes] = set()
    while session.mail:
        sender, receiver, data = session.mail.popleft()
        if receiver == mphe.SERVER:
            session.post(mphe.SERVER, session.server.receive(sender, data))
            continue
        stage = session.clients[receiver].setup.stage
        if receiver == 1 and hasattr(stage, "secret"):
            seen.add(stage.secret)
            assert stage.secret in session.clients[1].state
        session.act(receiver, partial(receive, data))
    (secret,) = seen
    assert secret not in session.clients[1].state


def test_exactly_the_last_message_again_gets_the_same_mail_again() -> None:
    session, told = in_round(MODES["hybrid"])
    client = session.clients[1]
    serial = mphe.serial_of(client.state)
    again = client.receive(told)
    assert again.events == [mphe.TrainOn(1, b"model")] and again.mail == []
    (sent,) = client.contribute(1, np.full(LENGTH, 1)).mail
    repeated = mphe.Client.restore(client.state, session.identities[1]).receive(told)
    assert repeated.mail == [sent] and repeated.events == []
    assert mphe.serial_of(client.state) == serial + 1


def test_a_client_that_comes_back_before_the_first_round_says_so_once() -> None:
    """The session is opened to it in the very words that it heard last."""
    session = Session(MODES["hybrid"], False)
    session.open()
    session.act(1, mphe.Client.reconnected)
    ((_, _, announcement),) = session.mail
    session.mail.clear()
    (opened,) = session.server.receive(1, announcement).mail
    assert session.clients[1].receive(opened[1]) == mphe.Step()


def test_what_is_refused_changes_nothing() -> None:
    session, _ = in_round(MODES["hybrid"])
    client, server = session.clients[1], session.server
    before = client.state
    for data in (b"", b"\xc1", codec.encode(RoundStart(1, b"other model"))):
        with pytest.raises(mphe.RemoteProtocolError):
            client.receive(data)
        assert client.state == before
    with pytest.raises(mphe.MalformedMessage):
        server.receive(1, b"\xc1")
    with pytest.raises(mphe.LocalProtocolError):
        client.start()
    with pytest.raises(mphe.EncodingError):
        client.contribute(1, np.full(LENGTH, 1 << 16))
    assert client.state == before


def test_nothing_is_sent_to_a_round_that_is_over_or_has_not_begun() -> None:
    session, _ = in_round(MODES["hybrid"])
    client = session.clients[1]
    assert client.contribute(2, np.zeros(LENGTH, np.int64)) == mphe.Step()
    newcomer = mphe.Client(2, session.parameters, session.identities[2], session.roster)
    assert newcomer.contribute(1, np.zeros(LENGTH, np.int64)) == mphe.Step()
    with pytest.raises(mphe.LocalProtocolError, match="no key"):
        newcomer.encrypt(np.zeros(LENGTH, np.int64))
    with pytest.raises(mphe.LocalProtocolError, match="no keys yet"):
        newcomer.reconnected()
    with pytest.raises(mphe.LocalProtocolError, match="SessionReady"):
        mphe.Server(session.parameters, session.roster).start_round(b"", [1])


def test_the_news_of_a_round_that_began_without_a_client_are_no_news() -> None:
    """A server that has not read a restarted client's first word takes it for the one before."""
    session, told = in_round(MODES["hybrid"])
    newcomer = mphe.Client(1, session.parameters, session.identities[1], session.roster)
    newcomer.start()
    assert newcomer.receive(told) == mphe.Step()
    assert newcomer.round == 0


def test_parameters_roster_and_identity_must_fit() -> None:
    parameters = mphe.SessionParameters(num_clients=3, threshold=2, length=5, rounds=1)
    identities = {i: mphe.Identity.generate() for i in (1, 2, 3)}
    roster = {i: identity.public for i, identity in identities.items()}
    with pytest.raises(mphe.ParameterError, match="another key for client 2"):
        mphe.Client(2, parameters, identities[1], roster)
    with pytest.raises(mphe.ParameterError, match="2 clients for 3"):
        mphe.Server(parameters, {1: roster[1], 2: roster[2]})
    with pytest.raises(mphe.ParameterError, match="without a gap"):
        mphe.Roster({1: roster[1], 3: roster[3]})
    with pytest.raises(mphe.ParameterError, match="have one key"):
        mphe.Roster({1: roster[1], 2: roster[1]})
    with pytest.raises(mphe.ParameterError, match="has not 32 bytes"):
        mphe.Roster({1: b"short"})
    assert mphe.Roster(roster) == roster
    again = mphe.Identity.from_bytes(identities[1].to_bytes())
    assert again.public == identities[1].public
    with pytest.raises(mphe.ParameterError, match="32 bytes"):
        mphe.Identity.from_bytes(b"short")


# -- states as bytes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept() -> tuple[bytes, mphe.Identity]:
    session, _ = in_round(MODES["verified"])
    return session.clients[1].state, session.identities[1]


def test_a_state_of_somebody_else_is_refused(kept: tuple[bytes, mphe.Identity]) -> None:
    state, _ = kept
    with pytest.raises(mphe.EncodingError, match="another client"):
        mphe.Client.restore(state, mphe.Identity.generate())
    with pytest.raises(mphe.EncodingError, match="no state of a server"):
        mphe.Server.restore(state)
    with pytest.raises(mphe.EncodingError, match="format 9"):
        mphe.Client.restore(state[:5] + b"\x09" + state[6:], kept[1])
    with pytest.raises(mphe.EncodingError, match="too short"):
        mphe.serial_of(b"mphe")
    with pytest.raises(mphe.EncodingError, match="no state"):
        mphe.serial_of(bytes(20))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_truncated_states_are_refused(
    kept: tuple[bytes, mphe.Identity], data: st.DataObject
) -> None:
    state, identity = kept
    end = data.draw(st.integers(0, len(state) - 1))
    with pytest.raises(mphe.EncodingError):
        mphe.Client.restore(state[:end], identity)
    with pytest.raises(mphe.EncodingError):
        mphe.Client.restore(state + state[:1], identity)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changed_states_give_a_client_or_an_encoding_error(
    kept: tuple[bytes, mphe.Identity], data: st.DataObject
) -> None:
    state, identity = kept
    # Most of a state are long elements: look at its heads and lengths above all.
    place = data.draw(st.integers(0, 400) | st.integers(0, len(state) - 1))
    changed = bytearray(state)
    changed[place] ^= data.draw(st.integers(1, 255))
    with suppress(mphe.EncodingError):
        mphe.Client.restore(bytes(changed), identity)


def test_the_serial_stands_at_a_fixed_place(kept: tuple[bytes, mphe.Identity]) -> None:
    state, _ = kept
    assert state[:4] == b"mphe" and state[4] == blob.Kind.CLIENT and state[5] == 1
    assert int.from_bytes(state[6:14], "big") == mphe.serial_of(state)


def test_every_message_of_a_contribution_is_one_of_the_codec() -> None:
    session, _ = in_round(MODES["hybrid"])
    ((receiver, data),) = session.clients[1].contribute(1, np.zeros(LENGTH, np.int64), b"t").mail
    message = codec.decode(data, 1)
    assert receiver == mphe.SERVER and isinstance(message, Contribution)
    assert message.metrics == b"t"
