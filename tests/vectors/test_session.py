"""The frames of one small session, followed by the second reader from the first join to the sum."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from tests.vectors import reader
from tests.vectors.reader import Ring, short

FOLDER = Path(__file__).parent
JOIN, JOINS, COMMIT, COMMITMENTS, REVEAL, QUALIFIED, READY, OPEN = range(8)
START, CONTRIBUTION, REQUEST, SHARE, END = 10, 11, 12, 13, 15


class Session:
    """What the frames say, and what the clients alone know."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.clients = {int(index): client for index, client in inputs["clients"].items()}
        self.identities = {i: bytes.fromhex(c["identity"]) for i, c in self.clients.items()}
        self.frames = []
        for item in inputs["frames"]:
            frame = bytes.fromhex(item["frame"])
            assert int.from_bytes(frame[:4], "big") == len(frame) - 4
            payload = reader.decode(frame[4:])
            # A writer of our own writes the same bytes.
            assert reader.encode(payload) == frame[4:]
            assert payload[0] == reader.VERSION
            self.frames.append((item["from"], item["to"], payload[1], payload[2:]))
        self.document = inputs["document"]
        _, self.parameters, self.plan = self.document
        self.ring = Ring(self.plan["threshold"]["ring"]["name"])
        self.digest = reader.plan_digest(self.document)
        *self.epoch, self.name, self.crs = reader.name_session(
            self.digest, self.identities, self.one(JOINS)[1]
        )
        self.qualified = [reveal[0] for reveal in self.one(QUALIFIED)[0]]
        self.key_shares = {
            reveal[0]: self.ring.read(reveal[1], self.ring.degree)
            for reveal in self.one(QUALIFIED)[0]
        }
        self.b = self.ring.add(*self.key_shares.values())
        commits = self.one(COMMITMENTS)[0]
        written = self.ring.write(self.b)
        self.transcript = reader.name_key(self.name, commits, self.qualified, written)

    def all(self, kind: int) -> list[tuple[int, int, list[Any]]]:
        """Return sender, receiver and fields of all messages of a kind."""
        return [(f, t, fields) for f, t, number, fields in self.frames if number == kind]

    def one(self, kind: int) -> list[Any]:
        """Return the fields of the first message of a kind."""
        return self.all(kind)[0][2]

    def private(self, index: int) -> bytes:
        return bytes.fromhex(self.clients[index]["exchange_key"])

    def opening(self, index: int, name: str) -> list[int]:
        """Return s_i or e_i."""
        data = bytes.fromhex(self.clients[index][name])
        return [byte - 256 if byte > 127 else byte for byte in data]

    def public(self, index: int) -> bytes:
        """Return a client's exchange key from the roster."""
        key: bytes = next(join[1] for join in self.one(JOINS)[1] if join[0] == index)
        return key

    def pairwise(self, own: int, other: int, salt: bytes, label: str, i: int, j: int) -> bytes:
        """Return a key of two clients, from what i encapsulated to j."""
        (sealed,) = [m[1] for _, to, m in self.all(QUALIFIED) if to == j]
        (ciphertext,) = [item[2] for item in sealed if item[0] == i]
        seed = bytes.fromhex(self.clients[j]["encapsulation_seed"])
        public, secret = reader.decapsulate(seed, ciphertext)
        assert public == next(join[5] for join in self.one(JOINS)[1] if join[0] == j)
        shared = secret, hashlib.sha256(ciphertext).digest()
        return reader.pairwise(self.private(own), self.public(other), *shared, salt, label, i, j)

    def share(self, index: int) -> list[int]:
        """Return the sum of what others sealed to a client."""
        ring = self.ring
        parts = []
        (sealed,) = [m[1] for _, to, m in self.all(QUALIFIED) if to == index]
        for dealer, text, _ in sealed:
            key = self.pairwise(index, dealer, self.name, "seal", dealer, index)
            opened = reader.unseal(key, self.name, dealer, index, text)
            parts.append(ring.read(opened, ring.degree))
        assert len(parts) == len(self.qualified) - 1
        return ring.add(*parts)


@cache
def known() -> tuple[Session, dict[str, Any]]:
    (vector,) = json.loads((FOLDER / "session.json").read_text())
    return Session(vector["inputs"]), vector["output"]


def test_messages_come_in_the_order_of_the_protocol() -> None:
    session, _ = known()
    kinds = [number for *_, number, _ in session.frames]
    firsts = sorted(set(kinds), key=kinds.index)
    setup = [JOIN, JOINS, COMMIT, COMMITMENTS, REVEAL, QUALIFIED, READY, REQUEST, SHARE, OPEN]
    assert firsts == [*setup, START, CONTRIBUTION, END]
    assert all((number in (JOIN, COMMIT, REVEAL, READY, CONTRIBUTION, SHARE)) == (to == 0)
               for _, to, number, _ in session.frames)  # fmt: skip


def test_names_follow_from_what_was_sent() -> None:
    session, _ = known()
    assert session.one(JOINS)[0] == session.digest
    for kind, place in ((START, 3), (CONTRIBUTION, 7), (REQUEST, 7), (SHARE, 3), (END, 2)):
        assert {fields[place] for *_, fields in session.all(kind)} == {session.transcript}


def test_every_signature_is_right() -> None:
    session, _ = known()
    for index, exchange_key, entropy, signature, _, other in session.one(JOINS)[1]:
        parts = (*session.epoch, short(index), exchange_key, other, entropy)
        reader.verify(session.identities[index], signature, "join", *parts)
    commits = {index: commitment for index, commitment, _ in session.one(COMMITMENTS)[0]}
    for index, commitment, signature in session.one(COMMITMENTS)[0]:
        parts = (session.name, short(index), commitment)
        reader.verify(session.identities[index], signature, "commit", *parts)
    for index, b, nonce, signature, proof in session.one(QUALIFIED)[0]:
        parts = (session.name, short(index), nonce, b, proof)
        reader.verify(session.identities[index], signature, "reveal", *parts)
        parts = (session.name, short(index), nonce, b)
        assert commits[index] == reader.hashed("commitment", *parts)
    for sender, _, (signature, unopened) in session.all(READY):
        reader.verify(session.identities[sender], signature, "ready", session.transcript)
        assert unopened == []
    for index, signature in session.one(OPEN)[1]:
        reader.verify(session.identities[index], signature, "ready", session.transcript)


def test_a_signature_of_something_else_is_not_right() -> None:
    session, _ = known()
    sender, _, (signature, _) = session.all(READY)[0]
    with pytest.raises(InvalidSignature):
        reader.verify(session.identities[sender], signature, "return", session.transcript)


@pytest.mark.parametrize("index", [1, 2])
def test_key_shares_are_made_from_the_secrets(index: int) -> None:
    session, _ = known()
    ring = session.ring
    a = ring.expand(session.crs, "collective key")
    product = ring.multiply(a, session.opening(index, "secret"))
    assert ring.add(product, session.opening(index, "error")) == session.key_shares[index]


def shares_of_s(session: Session) -> dict[int, list[int]]:
    """Return f(1), f(2): what a client opens, and what it kept of its own polynomial.

    With t = 2 the value that a dealer kept follows from its secret and what it dealt.
    """
    ring, shares = session.ring, {}
    for index, other in ((1, 2), (2, 1)):
        received = session.share(index)  # f_other(index)
        own = kept(session, index, session.share(other))  # f_index(other) is what we dealt
        shares[index] = ring.add(received, own)
    return shares


def kept(session: Session, index: int, dealt: list[int]) -> list[int]:
    """Return f(index) of the line through f(0) = s_index and f(other) = dealt."""
    other, q = 3 - index, session.ring.q
    slope = pow(other, -1, q)
    secret = session.opening(index, "secret")
    return [(s + (d - s) * slope * index) % q for s, d in zip(secret, dealt, strict=True)]


def test_shares_put_together_are_the_secret() -> None:
    session, _ = known()
    ring, shares = session.ring, shares_of_s(session)
    total = [
        sum(reader.factor(ring.q, j, [1, 2]) * shares[j][i] for j in (1, 2)) % ring.q
        for i in range(ring.degree)
    ]
    secret = [session.opening(i, "secret") for i in (1, 2)]
    assert total == ring.add(*secret)


def asked(session: Session, round: int) -> dict[str, Any]:
    """Return the fields of the last request of a round, and the c1 that it means."""
    names = ("round", "attempt", "active", "groups", "model")
    more = ("pledges", "evidence", "transcript", "draw", "asked")
    request = [m for *_, m in session.all(REQUEST) if m[0] == round][-1]
    fields = dict(zip((*names, *more), request, strict=True))
    return fields | {"c1": fields["groups"][0][1]}


def test_round_zero_confirms_the_key() -> None:
    session, _ = known()
    ring, layout = session.ring, session.plan["threshold"]
    a = ring.expand(session.crs, "collective key")
    message, c0, _ = reader.confirming(ring, a, session.b, session.transcript, layout)
    answers = [read_share(session, m) for *_, m in session.all(SHARE) if m[0] == 0]
    opened = [(c - sum(h)) % ring.q for c, *h in zip(c0, *answers, strict=True)]
    whole = layout | {"length": ring.degree * layout["slots"]}
    assert reader.unpack(opened, whole)[0] == message


def read_share(session: Session, fields: list[Any]) -> list[int]:
    dropped = session.plan["dropped_share"]
    count = len(fields[2]) // (session.ring.size - dropped)
    return session.ring.read(fields[2], count, dropped)


@pytest.mark.parametrize("index", [1, 2])
def test_a_decryption_share_is_masked_and_smudged(index: int) -> None:
    session, _ = known()
    ring, request = session.ring, asked(session, 1)
    other = 3 - index
    key = session.pairwise(index, other, session.transcript, "zero-share", 1, 2)
    (mask,) = reader.mask(ring, key, request)
    (fields,) = [m for sender, _, m in session.all(SHARE) if sender == index and m[0] == 1]
    seen = read_share(session, fields)
    c1 = ring.read(request["c1"], ring.degree)
    factor = reader.factor(ring.q, index, request["active"])
    scaled = [value * factor % ring.q for value in shares_of_s(session)[index]]
    product = ring.multiply(scaled, c1)
    sign = 1 if other > index else -1
    rest = [ring.centred(h - p - sign * m)
            for h, p, m in zip(seen, product, mask, strict=False)]  # fmt: skip
    deviation = 2 ** (session.plan["smudging"] / 1000)
    assert len(rest) == len(seen) > 1000
    assert max(map(abs, rest)) < 16 * deviation
    assert deviation / 2 < (sum(v * v for v in rest) / len(rest)) ** 0.5 < 2 * deviation


def test_the_sum_is_that_of_the_values() -> None:
    session, output = known()
    ring, plan = session.ring, session.plan
    contributions = {sender: m for sender, _, m in session.all(CONTRIBUTION)}
    assert asked(session, 1)["groups"][0][0] == sorted(contributions)
    halves = [ring.read(m[2], ring.degree) for m in contributions.values()]
    assert ring.write(ring.add(*halves)) == asked(session, 1)["c1"]
    count = len(contributions[1][1]) // (ring.size - plan["dropped_c0"])
    c0 = ring.add(*[ring.read(m[1], count, plan["dropped_c0"]) for m in contributions.values()])
    answers = [read_share(session, m) for *_, m in session.all(SHARE) if m[0] == 1]
    opened = [(c - sum(h)) % ring.q for c, *h in zip(c0, *answers, strict=True)]
    offset = reader.KEY_PAIRS * len(contributions)
    keys = [value - offset for value in reader.unpack(opened, plan["threshold"])[0]]
    assert max(map(abs, keys)) <= offset
    payload = plan["payload"]
    wide = Ring(payload["ring"]["name"])
    used = len(contributions[1][3]) // (wide.size - plan["dropped_body"])
    bodies = [wide.read(m[3], used, plan["dropped_body"]) for m in contributions.values()]
    hidden = wide.multiply(wide.expand(session.crs, "payload"), keys)
    total, errors = reader.unpack(
        [(b - h) % wide.q for b, h in zip(wide.add(*bodies), hidden, strict=False)], payload
    )
    assert total == output["total"]
    plain = [client["values"] for client in session.clients.values()]
    assert total == [sum(column) for column in zip(*plain, strict=True)]
    largest = reader.KEY_PAIRS + (1 << 8 * plan["dropped_body"] >> 1)
    assert max(map(abs, errors)) <= largest * len(contributions)


def test_the_round_says_whose_values_were_counted() -> None:
    session, _ = known()
    assert session.one(START)[0] == 1 and session.one(START)[4] == [0, 1, b""]
    assert all(fields[:2] == [1, [1, 2]] for *_, fields in session.all(END))
