"""What a decryptor of a verified session refuses, and what it overlooks in another session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mphe.errors import EncodingError, RefusedDecryption
from mphe.roles.verified.evidence import Statement, Verifier, c1_digest, model_digest
from mphe.wire.messages import SERVER, DecryptionRequest, Evidence, Pledge
from tests.simulation import Simulation, only_group, rephrased, snapshot


def verified() -> tuple[Simulation, DecryptionRequest]:
    """Return four clients that have contributed, and what an honest server asks."""
    simulation = Simulation(4, 3, min_contributors=3, verified=True)
    simulation.run_setup()
    _, request = simulation.collect(simulation.random_updates())
    return simulation, request


def first(request: DecryptionRequest, **changes: object) -> tuple[Evidence, ...]:
    """Return the evidence with changes to that of client 1."""
    return (replace(request.evidence[0], **changes), *request.evidence[1:])  # type: ignore[arg-type]


def other_way_round(data: bytes) -> bytes:
    """Return the bytes with the first one changed."""
    return bytes([data[0] ^ 1]) + data[1:]


NOT_THEIRS = "the evidence is not that of the contributors"
UNSORTED = "the pledges are not sorted, distinct and of clients"
UNSIGNED = "client 1 did not sign this contribution"
Change = Callable[[DecryptionRequest], DecryptionRequest]
LIES: dict[str, tuple[str, Change]] = {
    "no evidence": (NOT_THEIRS, lambda r: replace(r, evidence=())),
    "evidence missing": (NOT_THEIRS, lambda r: replace(r, evidence=r.evidence[:-1])),
    "evidence out of order": (NOT_THEIRS, lambda r: replace(r, evidence=r.evidence[::-1])),
    "evidence twice": (NOT_THEIRS, lambda r: replace(r, evidence=(r.evidence[0], *r.evidence))),
    "evidence of one more": (
        NOT_THEIRS,
        lambda r: rephrased(r, contributors=only_group(r).contributors[:-1]),
    ),
    "evidence under another index": (
        "client 1 contributes another c1",
        lambda r: replace(r, evidence=(replace(r.evidence[1], index=1), *r.evidence[1:])),
    ),
    "c1 and evidence": (NOT_THEIRS, lambda r: rephrased(r, c1=r.evidence[0].c1)),
    "c1 and no evidence": (NOT_THEIRS, lambda r: rephrased(r, c1=r.evidence[0].c1, evidence=())),
    "pledges out of order": (UNSORTED, lambda r: replace(r, pledges=r.pledges[::-1])),
    "a pledge twice": (UNSORTED, lambda r: replace(r, pledges=(r.pledges[0], *r.pledges))),
    "two pledges of one client": (
        UNSORTED,
        lambda r: replace(r, pledges=(r.pledges[0], Pledge(1, bytes(32)), *r.pledges[1:])),
    ),
    "no pledges": ("another c1 than it pledged", lambda r: replace(r, pledges=())),
    "a pledge of a contributor missing": (
        "client 1 contributes another c1",
        lambda r: replace(r, pledges=r.pledges[1:]),
    ),
    "a pledge of nobody added": (
        UNSORTED,
        lambda r: replace(r, pledges=(*r.pledges, Pledge(9, bytes(32)))),
    ),
    "a pledge of index 0": (
        UNSORTED,
        lambda r: replace(r, pledges=(Pledge(0, bytes(32)), *r.pledges)),
    ),
    "a pledge of an index that enters no hash": (
        UNSORTED,
        lambda r: replace(r, pledges=(*r.pledges, Pledge(1 << 32, bytes(32)))),
    ),
    "another pledge of somebody who is left out": (
        UNSIGNED,
        lambda r: rephrased(
            r,
            contributors=only_group(r).contributors[:3],
            evidence=r.evidence[:3],
            pledges=(*r.pledges[:3], Pledge(4, bytes(32))),
        ),
    ),
    "another model": (UNSIGNED, lambda r: replace(r, model=model_digest(b"another"))),
    "no model": (UNSIGNED, lambda r: replace(r, model=b"")),
    "another round": (UNSIGNED, lambda r: replace(r, round=2)),
    "an altered signature": (
        UNSIGNED,
        lambda r: replace(r, evidence=first(r, signature=other_way_round(r.evidence[0].signature))),
    ),
    "somebody's signature": (
        UNSIGNED,
        lambda r: replace(r, evidence=first(r, signature=r.evidence[1].signature)),
    ),
    "no signature": (UNSIGNED, lambda r: replace(r, evidence=first(r, signature=b""))),
    "no proof": ("wrong length", lambda r: replace(r, evidence=first(r, proof=b""))),
    "somebody's proof": (
        "does not fit",
        lambda r: replace(r, evidence=first(r, proof=r.evidence[1].proof)),
    ),
    "an altered proof": (
        "does not fit",
        lambda r: replace(r, evidence=first(r, proof=other_way_round(r.evidence[0].proof))),
    ),
    "an altered c1": (
        "another c1 than it pledged",
        lambda r: replace(r, evidence=first(r, c1=other_way_round(r.evidence[0].c1))),
    ),
}


@pytest.fixture(scope="module")
def shared() -> tuple[Simulation, DecryptionRequest]:
    """Return a verified session for tests that leave it as it was."""
    return verified()


@pytest.mark.parametrize("name", LIES)
def test_a_false_request_is_refused_and_changes_nothing(
    name: str, shared: tuple[Simulation, DecryptionRequest]
) -> None:
    reason, lie = LIES[name]
    simulation, request = shared
    for index in request.active:
        decryptor = simulation.decryptors[index]
        before = snapshot(decryptor)
        with pytest.raises(RefusedDecryption, match=reason):
            decryptor.receive(SERVER, lie(request))
        assert snapshot(decryptor) == before


def test_what_was_refused_does_not_hinder_the_true_request() -> None:
    simulation, request = verified()
    for reason, lie in LIES.values():
        with pytest.raises(RefusedDecryption, match=reason):
            simulation.decryptors[1].receive(SERVER, lie(request))
    assert set(simulation.ask(request)) == set(request.active)


def test_evidence_of_another_session_is_refused() -> None:
    simulation, request = verified()
    other = Simulation(4, 3, min_contributors=3, verified=True, rounds=49)
    other.run_setup()
    _, foreign = other.collect(other.random_updates())
    with pytest.raises(RefusedDecryption, match="another session"):
        simulation.decryptors[1].receive(SERVER, foreign)
    # Its pledges are of another session as well.
    disguised = replace(foreign, transcript=request.transcript)
    with pytest.raises(RefusedDecryption, match="another c1 than it pledged"):
        simulation.decryptors[1].receive(SERVER, disguised)
    assert simulation.ask(request)


def test_a_smaller_sum_of_the_same_contributions_is_answered_instead_but_not_beside() -> None:
    simulation, request = verified()
    fewer = rephrased(request, contributors=(2, 3, 4), evidence=request.evidence[1:])
    assert simulation.ask(fewer)
    with pytest.raises(RefusedDecryption, match="another aggregate of round 1"):
        simulation.decryptors[1].receive(SERVER, replace(request, attempt=2))


# -- the sum ---------------------------------------------------------------------------------------


def test_a_verifier_adds_up_what_the_contributors_sent() -> None:
    simulation, request = verified()
    session, ring = simulation.session, simulation.ring
    verifier = Verifier(session.plan, session.key, session.identities)
    total = sum((ring.from_bytes(item.c1, ring.degree) for item in request.evidence), ring.zero())
    (added,) = verifier.add_up(session.transcript, request)
    assert added == ring.to_bytes(ring.reduce(total))
    with pytest.raises(EncodingError, match="another c1 than it pledged"):
        verifier.add_up(bytes(32), request)


def test_a_statement_differs_whenever_a_part_of_it_does() -> None:
    pledges = (Pledge(1, bytes(32)), Pledge(2, b"\1" * 32))
    statement = Statement(b"T" * 32, 1, model_digest(b"model"), pledges)
    others = [
        replace(statement, session=bytes(32)),
        replace(statement, round=2),
        replace(statement, model=model_digest(b"other")),
        replace(statement, pledges=pledges[:1]),
        replace(statement, pledges=pledges[::-1]),
        replace(statement, pledges=(Pledge(1, b"\1" * 32), Pledge(2, bytes(32)))),
        replace(statement, pledges=(Pledge(1, bytes(32)), Pledge(3, b"\1" * 32))),
    ]
    assert len({statement.digest(), *(other.digest() for other in others)}) == 8
    assert statement.digest() == replace(statement).digest()
    assert statement.pledged(2) == b"\1" * 32
    assert statement.pledged(3) == b""
    assert c1_digest(bytes(32), b"data") != model_digest(b"data")


# -- round 0 ---------------------------------------------------------------------------------------

CONFIRMING: dict[str, tuple[str, Change]] = {
    "c1": (
        "nobody chooses what confirms the key",
        lambda r: rephrased(r, c1=r.evidence[0].c1, contributors=(), evidence=()),
    ),
    "contributors": ("the key is confirmed once", lambda r: replace(r, evidence=())),
    "c1, contributors and evidence": (
        "the key is confirmed once",
        lambda r: rephrased(r, c1=r.evidence[0].c1),
    ),
}


@pytest.mark.parametrize("name", CONFIRMING)
def test_nobody_chooses_what_confirms_the_key(name: str) -> None:
    reason, lie = CONFIRMING[name]
    simulation, request = verified()
    decryptor = simulation.decryptors[1]
    # As it was before the session was opened.
    decryptor._confirming = True
    with pytest.raises(RefusedDecryption, match=reason):
        decryptor.receive(SERVER, replace(lie(request), round=0))


def test_the_key_is_not_confirmed_again() -> None:
    simulation, request = verified()
    again = rephrased(request, round=0, contributors=(), c1=b"", evidence=())
    for index in request.active:
        with pytest.raises(RefusedDecryption, match="before all rounds"):
            simulation.decryptors[index].receive(SERVER, replace(again, attempt=2))


# -- without verification --------------------------------------------------------------------------


def test_evidence_is_overlooked_where_aggregates_are_not_verified() -> None:
    """It is the server's c1 that counts there; evidence beside it neither helps nor harms."""
    simulation = Simulation(4, 3)
    simulation.run_setup()
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    assert (
        only_group(request).c1
        and not request.evidence
        and not request.pledges
        and not request.model
    )
    beside = replace(
        request,
        model=bytes(32),
        pledges=(Pledge(2, b""), Pledge(1, b"")),
        evidence=(Evidence(1, b"", b"", b""),),
    )
    total = simulation.decrypt(sent, beside)
    assert total is not None
    assert np.array_equal(total, np.sum(list(updates.values()), axis=0))
    # It does not make the same attempt another one either.
    with pytest.raises(RefusedDecryption, match="attempt 1 is not newer"):
        simulation.decryptors[1].receive(SERVER, request)
