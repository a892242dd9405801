"""Key set-up: who may say what when."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mphe.errors import LocalProtocolError, RemoteProtocolError, UnexpectedSender
from mphe.roles.setup.client import State as ClientState
from mphe.roles.setup.server import SetupState
from mphe.wire.codec import MESSAGE_TYPES
from mphe.wire.messages import (
    SERVER,
    Commit,
    Commitments,
    DecryptionShare,
    Join,
    JoinList,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    SessionOpen,
    Welcome,
)
from tests.protocol.support import SAMPLES, client_in, server_in
from tests.simulation import snapshot

# The message that leads on; a client that joins late is welcomed instead of put on the roster.
CLIENT_TAKES: dict[ClientState, type | None] = {
    ClientState.NEW: None,
    ClientState.JOINED: JoinList,
    ClientState.COMMITTED: Commitments,
    ClientState.REVEALED: Qualified,
    ClientState.READY: SessionOpen,
    ClientState.OPEN: None,
}
CLIENT_GOES_TO = dict(pairwise(ClientState))
SERVER_TAKES: dict[SetupState, set[type]] = {
    SetupState.JOINING: {Join},
    SetupState.COMMITTING: {Commit, Join},
    SetupState.REVEALING: {Reveal, Join},
    SetupState.READYING: {Ready, Join},
    SetupState.CONFIRMING: {DecryptionShare, Refusal, Join},
    SetupState.OPEN: set(),
    SetupState.FAILED: set(),
}


@pytest.mark.parametrize("state", ClientState)
def test_client_refuses_what_its_state_does_not_expect(state: ClientState) -> None:
    _, client, _ = client_in(state)
    before = snapshot(client)
    for kind in MESSAGE_TYPES:
        if kind is CLIENT_TAKES[state] or (state, kind) == (ClientState.JOINED, Welcome):
            continue
        assert kind not in client.ACCEPTS[state]
        with pytest.raises(RemoteProtocolError):
            client.receive(SERVER, SAMPLES[kind])
        assert snapshot(client) == before


@pytest.mark.parametrize("state", SetupState)
def test_server_refuses_what_its_state_does_not_expect(state: SetupState) -> None:
    _, server, _ = server_in(state)
    before = snapshot(server)
    for kind in MESSAGE_TYPES:
        if kind in SERVER_TAKES[state]:
            continue
        assert kind not in server.ACCEPTS[state]
        with pytest.raises(RemoteProtocolError) as caught:
            server.receive(3, SAMPLES[kind])
        assert caught.value.sender == 3
        assert snapshot(server) == before


@pytest.mark.parametrize("state", [s for s, kind in CLIENT_TAKES.items() if kind])
def test_client_moves_on_with_the_right_message_only_from_the_server(state: ClientState) -> None:
    _, client, held = client_in(state)
    before = snapshot(client)
    with pytest.raises(UnexpectedSender):
        client.receive(2, held[0])
    assert snapshot(client) == before
    client.receive(SERVER, held[0])
    assert client.state is CLIENT_GOES_TO[state]
    after = snapshot(client)
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, held[0])
    assert snapshot(client) == after


def test_client_starts_once() -> None:
    _, client, _ = client_in(ClientState.JOINED)
    with pytest.raises(LocalProtocolError):
        client.start()


@pytest.mark.parametrize("state", [SetupState.OPEN, SetupState.FAILED])
def test_finished_server_ignores_deadlines_and_losses(state: SetupState) -> None:
    _, server, _ = server_in(state)
    assert server.deadline_passed() == [] and server.lost(2) == []
    assert server.state is state


@pytest.mark.parametrize("state", [s for s, kinds in SERVER_TAKES.items() if kinds])
def test_strangers_and_lost_clients_are_not_heard(state: SetupState) -> None:
    _, server, held = server_in(state)
    for stranger in (0, 5):
        with pytest.raises(UnexpectedSender):
            server.receive(stranger, held[0])
    server.lost(3)
    with pytest.raises(RemoteProtocolError):
        server.receive(3, held[0])
