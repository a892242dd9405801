"""Attack: a process lives twice, and both of its lives encrypt, answer and add noise.

A process is forked; or it is restored twice from one state; or the machine that it runs on is
copied, with all that its randomness is made of. Where both lives draw the same, the server alone
reads the difference of two updates, or takes smudging or noise off.
Claim: what is drawn depends on what it is drawn for, so that no one-time key, error, mask of a
proof, smudging or noise is there twice for different values, models, rounds or requests; and the
same request gets the same bytes, from which nothing is to be averaged.
Weakened: streams depend on the state key alone, as those of a process that was keyed at its start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

import mphe
from mphe.arithmetic.hedge import Hedge
from mphe.arithmetic.ring import Limbs, Ring
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.arithmetic.system import System
from mphe.roles.machine import Send
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup.client import Committed
from mphe.scheme import packing
from mphe.scheme.decryption import Request, read_blocks, read_c1
from mphe.update import PrivateUpdateCodec
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Pledge,
    Qualified,
    RoundStart,
)
from tests.attacks.test_cloned_state import LARGER, SMALLER, difference
from tests.mphe.sessions import LENGTH, MODES, Session
from tests.mphe.test_client import in_round
from tests.protocol.support import ready
from tests.simulation import Simulation, centred, integers, only_group
from tests.support import SeededSystem

Act = Callable[[mphe.Client], bytes]
Lives = Callable[[mphe.Client, mphe.Identity, Act, Act], tuple[bytes, bytes]]


# -- how a process comes to live twice -----------------------------------------------------------


def in_fork(work: Callable[[], bytes]) -> bytes:
    """Return what a fork of this process computes."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(work())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return data


def forked(
    client: mphe.Client, identity: mphe.Identity, first: Act, second: Act
) -> tuple[bytes, bytes]:
    """Let a process and its fork act."""
    there = in_fork(lambda: second(client))
    return first(client), there


def restored(
    client: mphe.Client, identity: mphe.Identity, first: Act, second: Act
) -> tuple[bytes, bytes]:
    """Let two act that were made from one state."""
    one, two = (mphe.Client.restore(client.state, identity) for _ in range(2))
    return first(one), second(two)


def copied(
    client: mphe.Client, identity: mphe.Identity, first: Act, second: Act
) -> tuple[bytes, bytes]:
    """Let two machines act that draw the same bytes, in processes of the same number."""
    state, machines = client.state, [SeededSystem("a machine's snapshot") for _ in range(2)]
    one, two = (mphe.Client.restore(state, identity, system=machine) for machine in machines)
    return first(one), second(two)


each_way = pytest.mark.parametrize("lives", [forked, restored, copied])


def insecure_stream(self: Hedge, purpose: str, *parts: bytes) -> RandomSource:
    """Return the stream of a process that was keyed once."""
    return RandomSource(derive_seed("hedge/" + purpose, self.key))


def insecure_smudging_seed(self: Request, key: bytes, group: int) -> bytes:
    """Return the same seed for every request."""
    return derive_seed("smudging", key)


# -- the set-up ----------------------------------------------------------------------------------


def drawn_for_two_sessions() -> tuple[bytes, bytes]:
    """Return the secrets that a copied client draws when it is shown two lists of joins."""
    session = Session(MODES["hybrid"], False)
    joins = {i: client.start().mail[0][1] for i, client in session.clients.items()}
    state, secrets = session.clients[1].state, []
    for last in (5, 4):
        server = mphe.Server(session.parameters, session.roster)
        for index in range(1, last + 1):
            step = server.receive(index, joins[index])
        step = step if last == 5 else server.lost(5)
        told = next(data for receiver, data in step.mail if receiver == 1)
        machine = SeededSystem("a machine's snapshot")
        client = mphe.Client.restore(state, session.identities[1], system=machine)
        client.receive(told)
        assert isinstance(client.setup.stage, Committed)
        secrets.append(client.setup.stage.secret)
    return secrets[0], secrets[1]


def test_a_copied_client_draws_another_secret_for_another_session() -> None:
    first, second = drawn_for_two_sessions()
    assert first != second


def test_without_the_hedge_two_sessions_have_one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hedge, "stream", insecure_stream)
    first, second = drawn_for_two_sessions()
    assert first == second


# -- contributions -------------------------------------------------------------------------------


def contributing(update: np.ndarray, told: bytes = b"") -> Act:
    """Return what contributes this update, to the round that it is told of."""

    def act(client: mphe.Client) -> bytes:
        if told:
            client.receive(told)
        ((_, data),) = client.contribute(client.round, update).mail
        return data

    return act


def parsed(data: bytes) -> Contribution:
    message = codec.decode(data, 1)
    assert isinstance(message, Contribution)
    return message


def read_difference(plan: mphe.Plan, first: Contribution, second: Contribution) -> np.ndarray:
    """Return what the server reads: x - x' of what was encrypted under the same keys."""
    if plan.payload is None:
        return difference(plan, first, second)
    ring, layout = Ring(plan.payload.ring), plan.payload
    (one,) = read_blocks(ring, layout, first.body, plan.dropped_body)
    (two,) = read_blocks(ring, layout, second.body, plan.dropped_body)
    left = Limbs(one - two)
    packing.add_half(layout, left)
    values, _ = packing.unpack(layout, ring.reduce(left))
    return packing.flatten(layout, values)


def two_updates(mode: str, lives: Lives) -> tuple[bool, bool]:
    """Return whether two lives drew the same c1, and whether the server reads the difference."""
    session, _ = in_round(MODES[mode])
    client, identity = session.clients[1], session.identities[1]
    data = lives(client, identity, contributing(LARGER), contributing(SMALLER))
    first, second = map(parsed, data)
    seen = read_difference(client.plan, first, second)
    return first.c1 == second.c1, bool(np.array_equal(seen, LARGER - SMALLER))


@each_way
@pytest.mark.parametrize("mode", ["hybrid", "direct"])
def test_two_lives_never_encrypt_two_updates_under_the_same_keys(lives: Lives, mode: str) -> None:
    assert two_updates(mode, lives) == (False, False)


@each_way
@pytest.mark.parametrize("mode", ["hybrid", "direct"])
def test_without_the_hedge_the_server_reads_the_difference(
    monkeypatch: pytest.MonkeyPatch, lives: Lives, mode: str
) -> None:
    monkeypatch.setattr(Hedge, "stream", insecure_stream)
    assert two_updates(mode, lives) == (True, True)


def opened(mode: str) -> Session:
    """Return a session with its keys, before any round."""
    session = Session(MODES[mode], False)
    session.open()
    return session


def start(session: Session, round: int, model: bytes) -> bytes:
    """Return what a lying server tells a client to train on."""
    keys = session.clients[1].setup.keys
    assert keys is not None
    return codec.encode(RoundStart(round, model, transcript=keys.transcript))


def drawn(lives: Lives) -> list[bytes]:
    """Return the c1 of lives that differ in the model, the round or the values."""
    session = opened("hybrid")
    client, identity = session.clients[1], session.identities[1]
    state = client.state
    places = [(1, b"model", 5), (1, b"another", 5), (2, b"model", 5), (1, b"model", 6)]
    found = set()
    for one, two in combinations(places, 2):
        acts = [
            contributing(np.full(LENGTH, value), start(session, round, model))
            for round, model, value in (one, two)
        ]
        again = mphe.Client.restore(state, identity)
        found |= {parsed(data).c1 for data in lives(again, identity, *acts)}
    return sorted(found)


def test_values_model_and_round_all_enter_where_nothing_else_differs() -> None:
    assert len(drawn(copied)) == 4


def test_lives_that_are_told_the_same_draw_anew_unless_the_machine_is_copied() -> None:
    assert len(drawn(restored)) == 12
    assert len(drawn(forked)) == 12


def test_without_the_hedge_one_key_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hedge, "stream", insecure_stream)
    assert len(drawn(copied)) == 1


# -- proofs ----------------------------------------------------------------------------------------


def responses(contribution: Contribution) -> np.ndarray:
    """Return z = y + X^i·u of all masks."""
    packed = np.frombuffer(contribution.proof[32:], np.uint8).reshape(-1, 5)
    pairs = packed.astype(np.int64) @ (1 << 8 * np.arange(5))
    return np.stack((pairs & 0xFFFFF, pairs >> 20), axis=1).reshape(-1)


def masks_repeat() -> bool:
    """Return whether copies of a client that are shown other lists of pledges prove under one mask.

    Masks are drawn until nothing leaks, so two of several copies come to an end with the same ones.
    """
    session = opened("verified")
    client, identity = session.clients[1], session.identities[1]
    step = session.server.start_round(b"model", range(1, 6))
    told = next(data for receiver, data in step.mail if receiver == 1)
    start = codec.decode(told, SERVER)
    assert isinstance(start, RoundStart)
    state, made = client.state, []
    for number in range(8):
        # Another list, in which this client's own pledge stands as it was.
        other = (*start.pledges[:-1], Pledge(start.pledges[-1].index, bytes([number]) * 32))
        act = contributing(LARGER, codec.encode(replace(start, pledges=other)))
        machine = SeededSystem("a machine's snapshot")
        made.append(parsed(act(mphe.Client.restore(state, identity, system=machine))))
    assert len({contribution.c1 for contribution in made}) == 1
    pairs = combinations(map(responses, made), 2)
    return any(np.abs(one - two).max() <= 2 for one, two in pairs)


def test_two_lists_of_pledges_are_not_proven_under_one_mask() -> None:
    assert not masks_repeat()


def test_without_the_hedge_the_masks_of_two_proofs_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is (X^i - X^i')·u, and u opens the contribution."""
    monkeypatch.setattr(Hedge, "stream", insecure_stream)
    assert masks_repeat()


# -- smudging --------------------------------------------------------------------------------------


def answers(simulation: Simulation, request: DecryptionRequest) -> dict[int, bytes]:
    """Return what lives of the active decryptors answer that have answered nothing else."""
    shares = {}
    for index in request.active:
        life = Decryptor(simulation.keys[index], memory=Memory(confirming=False))
        (output,) = life.receive(SERVER, request)
        assert isinstance(output, Send) and isinstance(output.message, DecryptionShare)
        shares[index] = output.message.share
    return shares


def smudging(simulation: Simulation, request: DecryptionRequest) -> list[int]:
    """Return what the decryptors added to s·c1, all together."""
    ring, plan = simulation.ring, simulation.plan
    secret = ring.zero()
    for share in simulation.key_shares.values():
        secret = ring.reduce(Limbs(secret + ring.from_small(share.secret)))
    (c1,) = read_c1(ring, plan.threshold, only_group(request).c1)
    product = ring.multiply(ring.spectrum(secret, 16), ring.spectrum(c1, 16))
    total: Limbs = Limbs(-product)
    for data in answers(simulation, request).values():
        (block,) = read_blocks(ring, plan.threshold, data, plan.dropped_share)
        total = Limbs(total[:, : block.shape[1]] + block)
    return [centred(value, ring.modulus) for value in integers(ring.reduce(total))]


def two_requests() -> tuple[Simulation, DecryptionRequest, DecryptionRequest]:
    """Return two sums of one round, which each of two lives answers for."""
    simulation = ready(3, 2)
    made = {i: simulation.contribution(i, 1, u) for i, u in simulation.random_updates().items()}
    fewer = {i: made[i] for i in (1, 2)}
    return simulation, simulation.request(made), simulation.request(fewer)


def smudging_repeats() -> bool:
    simulation, first, second = two_requests()
    one, two = (smudging(simulation, request) for request in (first, second))
    # Shares are sent without their lowest bytes; what is left of those is a fraction of σ.
    left = np.array([a - b for a, b in zip(one, two, strict=True)], np.float64)
    return bool(np.std(left) < np.std(np.array(one, np.float64)) / 4)


def test_two_lives_never_smudge_two_sums_alike() -> None:
    assert not smudging_repeats()


def test_where_all_requests_have_one_smudging_it_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of the two sums' shares is s·(c1 - c1'), without noise: that gives s."""
    monkeypatch.setattr(Request, "smudging_seed", insecure_smudging_seed)
    assert smudging_repeats()


def test_the_same_request_gets_the_same_bytes_in_every_life() -> None:
    """Else each life would show s·c1 under another smudging, to be averaged away."""
    simulation, request, _ = two_requests()
    first = answers(simulation, request)
    assert answers(simulation, request) == first

    def there() -> bytes:
        return b"".join(answers(simulation, request).values())

    assert in_fork(there) == b"".join(first.values())


def test_lives_that_part_in_the_set_up_have_one_smudging_key() -> None:
    session = Session(MODES["hybrid"], False)
    for index in session.clients:
        session.act(index, mphe.Client.start)
    session.deliver(lambda _, receiver, message: receiver == 1 and isinstance(message, Qualified))
    _, _, told = session.mail[0]
    seen, state = set(), session.clients[1].state
    for _ in range(2):
        life = mphe.Client.restore(state, session.identities[1])
        life.receive(told)
        assert life.setup.keys is not None
        seen.add(life.setup.keys.smudging_key)
    assert len(seen) == 1


# -- noise ---------------------------------------------------------------------------------------

SIZE = 200


def noisy(hedge: Hedge, update: np.ndarray, round: int = 1) -> np.ndarray:
    """Return an update as a client sends it under differential privacy."""
    private = PrivateUpdateCodec(SIZE, 16, 1.0, noise_multiplier=1.0, honest=2, hedge=hedge)
    public = private.first_public()
    sent = private.encode(update, public, seed=3, index=1, round=round)
    return sent[:SIZE].astype(np.int64)


def noise_repeats(fork: bool) -> bool:
    """Return whether the difference of two noisy updates is that of the updates."""
    zero, update = np.zeros(SIZE), np.full(SIZE, 0.01)
    if fork:
        hedge = Hedge(bytes(32), System())
        there = np.frombuffer(in_fork(lambda: noisy(hedge, zero).tobytes()), np.int64)
        here = noisy(hedge, update)
    else:
        hedges = [Hedge(bytes(32), SeededSystem("a machine's snapshot")) for _ in range(2)]
        here, there = noisy(hedges[0], update), noisy(hedges[1], zero)
    step = PrivateUpdateCodec(SIZE, 16, 1.0, noise_multiplier=1.0, honest=2).grid(1.0).step
    return bool(np.abs(here - there - 0.01 / step).max() <= 2)


@pytest.mark.parametrize("fork", [True, False])
def test_two_lives_never_add_one_noise_to_two_updates(fork: bool) -> None:
    assert not noise_repeats(fork)


@pytest.mark.parametrize("fork", [True, False])
def test_without_the_hedge_the_noise_cancels(monkeypatch: pytest.MonkeyPatch, fork: bool) -> None:
    monkeypatch.setattr(Hedge, "stream", insecure_stream)
    assert noise_repeats(fork)


def test_a_copied_machine_adds_another_noise_in_another_round() -> None:
    first, second = (
        noisy(Hedge(bytes(32), SeededSystem("a machine's snapshot")), np.zeros(SIZE), round)
        for round in (1, 2)
    )
    assert np.mean(first == second) < 0.2
