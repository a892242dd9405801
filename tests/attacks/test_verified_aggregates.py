"""A server that lies, with --verify_aggregate: no request but the true one gets an answer.

Each attack has the decryptors answer for a c1 that shows one client's update, or s itself. It
succeeds against decryptors that skip the check in question and fails against ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Integers, Limbs
from mphe.errors import EncodingError, RefusedDecryption
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.setup.common import SessionKeys
from mphe.roles.verified import evidence
from mphe.roles.verified.evidence import Prover, Statement, Verifier, c1_digest
from mphe.scheme.decryption import aggregate_shares
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.rlwe import Opening, Prepared
from mphe.wire.messages import Contribution, DecryptionRequest, Evidence, Pledge
from tests.simulation import (
    Simulation,
    centred,
    integers,
    only_group,
    rephrased,
)

VICTIM = 1
LIAR = 4
MOST = 0.9
"""Of the key's coefficients, one round shows so many; the most likely guess hits 0.24."""


class insecure_TrustingDecryptor(Decryptor):
    """Decrypts whatever c1 the server sends."""

    def _c1(self, message: DecryptionRequest) -> bytes:
        return only_group(message).c1 or super()._c1(message)


class insecure_SignatureBlindVerifier(Verifier):
    """Reads the c1 and checks nothing: no pledge, no signature, no proof."""

    def check(self, statement: Statement, evidence: Evidence) -> list[Element]:
        length = self._plan.threshold.ring.degree * self._plan.threshold.ring.bits // 8
        assert len(evidence.c1) == length
        return [self._ring.from_bytes(evidence.c1, self._ring.degree)]


class insecure_ProofBlindVerifier(Verifier):
    """Checks pledges and signatures, but no proof."""

    def check(self, statement: Statement, evidence: Evidence) -> list[Element]:
        try:
            return super().check(statement, evidence)
        except EncodingError as error:
            if "proof" not in str(error):
                raise
        return [self._ring.from_bytes(evidence.c1, self._ring.degree)]


def weakened(verifier: type[Verifier]) -> type[Decryptor]:
    class insecure_Decryptor(Decryptor):
        def __init__(self, keys: SessionKeys, *rest: Any) -> None:
            super().__init__(keys, *rest)
            self._verifier = verifier(keys.plan, keys.key, keys.identities)

    return insecure_Decryptor


def make(decryptor: type[Decryptor] = Decryptor) -> Simulation:
    simulation = Simulation(4, 3, verified=True, min_contributors=3, decryptor=decryptor)
    simulation.run_setup()
    return simulation


def opened(
    simulation: Simulation, request: DecryptionRequest, known: dict[int, Contribution]
) -> Integers | None:
    """Return the sum of some contributions if the decryptors answer for a request."""
    shares = [simulation.read_share(share) for share in simulation.ask(request).values()]
    return simulation.adding(known).recover(shares, len(known))


def refused(simulation: Simulation, request: DecryptionRequest, reason: str) -> None:
    """Make sure that every decryptor in D refuses, for that reason."""
    for index in request.active:
        with pytest.raises(RefusedDecryption, match=reason):
            simulation.decryptors[index].receive(0, request)


def test_the_true_request_is_answered() -> None:
    simulation = make()
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    total = opened(simulation, request, sent)
    assert total is not None
    assert np.array_equal(total, np.sum(list(updates.values()), axis=0))


# -- one client's c1 as the sum --------------------------------------------------------------------


@pytest.mark.parametrize("trusting", [True, False])
def test_one_c1_passed_off_as_the_sum(trusting: bool) -> None:
    simulation = make(insecure_TrustingDecryptor if trusting else Decryptor)
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    false = rephrased(request, c1=sent[VICTIM].c1)
    if trusting:
        seen = opened(simulation, false, {VICTIM: sent[VICTIM]})
        assert seen is not None and np.array_equal(seen, updates[VICTIM])
        return
    refused(simulation, false, "not that of the contributors")
    only = tuple(item for item in request.evidence if item.index == VICTIM)
    refused(simulation, replace(request, evidence=only), "not that of the contributors")
    alone = rephrased(request, evidence=only, contributors=(VICTIM,))
    refused(simulation, alone, "a sum of 1 updates; at least 3")
    thrice = rephrased(request, evidence=only * 3, contributors=(VICTIM,) * 3)
    refused(simulation, thrice, "not sorted, distinct and known")


@pytest.mark.parametrize("trusting", [True, False])
def test_a_constant_as_the_sum(trusting: bool) -> None:
    simulation = make(insecure_TrustingDecryptor if trusting else Decryptor)
    _, request = simulation.collect(simulation.random_updates())
    ring, bits = simulation.ring, 150
    constant = ring.zero()
    constant[bits // 32, 0] = 1 << bits % 32
    false = rephrased(request, c1=ring.to_bytes(constant))
    if not trusting:
        refused(simulation, false, "not that of the contributors")
        return
    shares = [simulation.read_share(share) for share in simulation.ask(false).values()]
    (total,) = aggregate_shares(shares)
    read = [centred(v, ring.modulus) / 4 / 2.0**bits for v in integers(ring.reduce(total))]
    secret = np.sum([share.secret for share in simulation.key_shares.values()], axis=0)
    assert np.array_equal(np.rint(read), secret[: len(read)])


# -- invented contributors -------------------------------------------------------------------------


def invent(simulation: Simulation, request: DecryptionRequest) -> tuple[DecryptionRequest, dict]:
    """Replace all but the victim's contribution by encryptions of zero, made by the server."""
    keys = simulation.keys[VICTIM]
    encryptor = Encryptor(simulation.plan, keys.key, keys.crs_seed)
    source = simulation.source("inventions")
    invented, items, pledges = {}, [], []
    for index in only_group(request).contributors:
        if index == VICTIM:
            continue
        prepared = encryptor.prepare(source)
        payload = encryptor.encrypt(
            np.zeros(simulation.parameters.length, np.int64), source, prepared
        )
        pledges.append(Pledge(index, c1_digest(keys.transcript, payload.c1)))
        invented[index] = (payload, prepared)
    own = next(p for p in request.pledges if p.index == VICTIM)
    listed = tuple(sorted([own, *pledges], key=lambda pledge: pledge.index))
    statement = Statement(keys.transcript, request.round, request.model, listed)
    for index, (payload, prepared) in invented.items():
        # The server has no identity of theirs; it signs with a key of its own.
        prover = Prover(simulation.plan, keys.key, index, simulation.identities[LIAR])
        proof = prover.prove(statement, prepared, source)
        items.append(Evidence(index, payload.c1, proof, prover.sign(statement, payload.c1)))
    victim = next(item for item in request.evidence if item.index == VICTIM)
    evidence_ = tuple(sorted([victim, *items], key=lambda item: item.index))
    sent = {
        index: Contribution(request.round, payload.c0, payload.c1, payload.body, b"")
        for index, (payload, _) in invented.items()
    }
    return replace(request, pledges=listed, evidence=evidence_), sent


@pytest.mark.parametrize("blind", [True, False])
def test_invented_contributors(blind: bool) -> None:
    decryptor = weakened(insecure_SignatureBlindVerifier) if blind else Decryptor
    simulation = make(decryptor)
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    false, invented = invent(simulation, request)
    if blind:
        seen = opened(simulation, false, {VICTIM: sent[VICTIM], **invented})
        assert seen is not None and np.array_equal(seen, updates[VICTIM])
    else:
        refused(simulation, false, "did not sign this contribution")
        # With the list that the victim signed, the others contribute what they did not pledge.
        refused(simulation, replace(false, pledges=request.pledges), "another c1 than it pledged")


def test_a_contributor_that_is_on_no_roster() -> None:
    simulation = make()
    _, request = simulation.collect(simulation.random_updates())
    first = request.evidence[:2]
    ghost = replace(request.evidence[2], index=5)
    false = rephrased(request, contributors=(1, 2, 5), evidence=(*first, ghost))
    refused(simulation, false, "not sorted, distinct and known|another c1 than it pledged")


# -- two models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blind", [True, False])
def test_two_models_in_one_round(blind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if blind:
        monkeypatch.setattr(evidence, "model_digest", lambda model: bytes(32))
        monkeypatch.setattr("mphe.roles.verified.pledges.model_digest", lambda model: bytes(32))
        monkeypatch.setattr(
            "mphe.roles.verified.evidence_store.model_digest", lambda model: bytes(32)
        )
    simulation = make()
    updates = simulation.random_updates()
    # The server's ledger finds the odd one out, so it takes part in name only.
    odd = {VICTIM: b"a model made for one client"}
    sent, request = simulation.collect(updates, odd)
    if blind:
        assert len(request.evidence) == 4
        assert opened(simulation, request, sent) is not None
        return
    assert VICTIM not in only_group(request).contributors
    lied = Evidence(VICTIM, sent[VICTIM].c1, sent[VICTIM].proof, sent[VICTIM].signature)
    false = rephrased(
        request,
        contributors=(VICTIM, *only_group(request).contributors),
        evidence=(lied, *request.evidence),
    )
    refused(simulation, false, "did not sign this contribution to this round, model and list")


# -- malformed c1 ----------------------------------------------------------------------------------


def malformed(simulation: Simulation, scaling: int) -> int:
    """Return log2 of B: above the smudging, and n·B below Δ/2."""
    return simulation.plan.threshold.noise_bits - 3 - (scaling.bit_length() - 1)


def corrupt_next(simulation: Simulation, bits: int) -> None:
    """Have the liar prepare c1 = a·u + e1 + B."""
    contributor = simulation.contributors[LIAR]
    pledged = contributor._pledged
    assert pledged is not None
    (prepared,) = pledged._prepared[pledged.pledged.next]
    simulation.ring.reduce(prepared.c1)
    prepared.c1[bits // 32, 0] += 1 << bits % 32
    simulation.ring.reduce(prepared.c1)
    simulation.push(LIAR, contributor.pledge())
    simulation.pump()


def key_in_the_sum(
    simulation: Simulation, request: DecryptionRequest, sent: dict[int, Contribution], bits: int
) -> float:
    """Return which part of s is read off the sum's noise."""
    ring, plan = simulation.ring, simulation.plan
    shares = [simulation.read_share(share) for share in simulation.ask(request).values()]
    (combined,) = aggregate_shares(shares)
    (c0,) = (simulation.adding(sent)._require().c0,)
    values = integers(ring.reduce(Limbs(c0[0] * plan.scaling - combined)))
    modulus = 1 << plan.threshold.noise_bits
    low = [(v + modulus // 2) % modulus - modulus // 2 for v in values]
    read = np.array([round(-v / 2.0**bits / plan.scaling) for v in low])
    secret = np.sum([share.secret for share in simulation.key_shares.values()], axis=0)
    return float(np.mean(read == secret[: read.size]))


@pytest.mark.parametrize("blind", [True, False])
def test_a_malformed_c1(blind: bool) -> None:
    simulation = make(weakened(insecure_ProofBlindVerifier) if blind else Decryptor)
    bits = malformed(simulation, simulation.plan.scaling)
    corrupt_next(simulation, bits)
    aggregator = simulation.aggregator
    assert aggregator is not None and aggregator._evidence is not None
    session = aggregator.session
    # The server is in league with the contributor, and adds up what it sends.
    blind_server = insecure_ProofBlindVerifier(session.plan, session.key, session.identities)
    aggregator._evidence._verifier = blind_server
    sent, request = simulation.collect(simulation.random_updates())
    if blind:
        assert key_in_the_sum(simulation, request, sent, bits) > MOST
    else:
        refused(simulation, request, "the proof does not fit")


def test_the_default_mode_lets_a_contributor_read_the_key() -> None:
    simulation = Simulation(4, 3, 4096, encryption="direct")
    simulation.run_setup()
    bits = malformed(simulation, 1)
    updates = simulation.random_updates()
    sent = {i: simulation.contribution(i, 1, update) for i, update in updates.items()}
    ring = simulation.ring
    c1 = ring.from_bytes(sent[LIAR].c1, ring.degree)
    c1[bits // 32, 0] += 1 << bits % 32
    sent[LIAR] = replace(sent[LIAR], c1=ring.to_bytes(ring.reduce(c1)))
    assert key_in_the_sum(simulation, simulation.request(sent), sent, bits) > MOST


# -- cancellation ----------------------------------------------------------------------------------


def cancelling(simulation: Simulation, others: list[bytes], own: Prepared) -> Element:
    """Return own c1 minus those of the others."""
    ring = simulation.ring
    total = own.c1.copy()
    for c1 in others:
        total -= ring.from_bytes(c1, ring.degree)
    return ring.reduce(total)


@pytest.mark.parametrize("blind", [True, False])
def test_a_contributor_cancels_all_others_but_one(blind: bool) -> None:
    simulation = make(weakened(insecure_SignatureBlindVerifier) if blind else Decryptor)
    used = {}  # what the others pledged, and forget when they have contributed
    for index, contributor in simulation.contributors.items():
        pledged = contributor._pledged
        assert pledged is not None
        used[index] = pledged._prepared[pledged.pledged.next]
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    keys = simulation.keys[LIAR]
    encryptor = Encryptor(simulation.plan, keys.key, keys.crs_seed)
    source = simulation.source("cancellation")
    (own,) = encryptor.prepare(source)
    payload = encryptor.encrypt(np.zeros(simulation.parameters.length, np.int64), source, (own,))
    c1 = cancelling(simulation, [sent[2].c1, sent[3].c1], own)
    wire = simulation.ring.to_bytes(c1)
    statement = Statement(keys.transcript, request.round, request.model, request.pledges)
    prover = Prover(simulation.plan, keys.key, LIAR, simulation.identities[LIAR])
    # It knows no u for this c1; the best it has is its own.
    half = Prepared(Opening(own.opening.secret, own.opening.error), own.transform, c1)
    proof = prover.prove(statement, (half,), source)
    liar = Evidence(LIAR, wire, proof, prover.sign(statement, wire))
    false = replace(request, evidence=(*request.evidence[:3], liar))
    if blind:
        mine = Contribution(1, payload.c0, payload.c1, payload.body, b"")
        seen = opened(simulation, false, {VICTIM: sent[VICTIM], LIAR: mine})
        assert seen is not None and np.array_equal(seen, updates[VICTIM])
        return
    refused(simulation, false, "client 4 contributes another c1 than it pledged")
    # Had it known the others' c1 when it pledged, the proof would still be missing.
    pledges = (*request.pledges[:3], Pledge(LIAR, c1_digest(keys.transcript, wire)))
    late = Statement(keys.transcript, request.round, request.model, pledges)
    items = []
    for index in only_group(request).contributors[:3]:
        honest = Prover(simulation.plan, keys.key, index, simulation.identities[index])
        (current,) = used[index]
        proof = honest.prove(late, (current,), source)
        items.append(Evidence(index, sent[index].c1, proof, honest.sign(late, sent[index].c1)))
    liar = replace(
        liar, proof=prover.prove(late, (half,), source), signature=prover.sign(late, wire)
    )
    hasty = replace(request, pledges=pledges, evidence=(*items, liar))
    refused(simulation, hasty, "the proof does not fit")


# -- replay and quorums ----------------------------------------------------------------------------


def test_evidence_of_an_old_round_is_refused() -> None:
    simulation = make()
    updates = simulation.random_updates()
    _, first = simulation.collect(updates)
    replayed = replace(first, round=2)
    refused(simulation, replayed, "did not sign this contribution to this round")


def test_a_second_aggregate_of_a_round_is_refused() -> None:
    simulation = make()
    sent, request = simulation.collect(simulation.random_updates())
    assert opened(simulation, request, sent) is not None
    fewer = rephrased(request, attempt=2, contributors=(1, 2, 3), evidence=request.evidence[:3])
    refused(simulation, fewer, "another aggregate of round 1")
