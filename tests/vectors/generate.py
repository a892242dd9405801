"""Writes the known answers of docs/wire.md: `python -m tests.vectors.generate`.

Every file is a list of {name, section, inputs, output}; byte strings and big numbers are lower-case
hex. Nothing here is random, so a test writes them again and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from math import ceil, log2
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl.model.round_model import RoundModel
from fl.report.timings import Timings
from mphe.arithmetic import sampling
from mphe.arithmetic.ring import Element, Limbs, Ring, Small
from mphe.arithmetic.rings import DATA_RING, KEY_RING, LARGE_RING, RINGS
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.net.frames import encode_header
from mphe.plan.agreement import PROTOCOL_VERSION, SessionParameters
from mphe.plan.plan import Plan, SlotLayout, make_plan
from mphe.roles.rounds.outcomes import Summed
from mphe.roles.setup import common as setup
from mphe.roles.setup import confirmation
from mphe.roles.verified.evidence import Statement, c1_digest, model_digest
from mphe.roles.verified.proving import proof_context
from mphe.scheme import packing, partition, sealing, sharing
from mphe.scheme.decryption import Request
from mphe.scheme.proof import ShortnessProof
from mphe.scheme.rlwe import CollectiveKey, common_reference, gen_share
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.update import PublicRange
from mphe.update.quantise import Counts, quantise
from mphe.wire import codec
from mphe.wire.messages import NUMBERS, Commit, Draw, Join, Pledge
from tests.kem import encapsulate
from tests.simulation import Simulation

FOLDER = Path(__file__).parent
Vector = dict[str, Any]


def fixed(label: str, count: int = 32) -> bytes:
    """Return bytes that everybody can predict."""
    return RandomSource(hashlib.sha256(label.encode()).digest()).bytes(count)


def known(name: str, section: str, inputs: Mapping[str, Any], output: Any) -> Vector:
    """Return one known answer."""
    return {"name": name, "section": section, "inputs": dict(inputs), "output": output}


def integers(x: Any) -> list[int]:
    """Return the coefficients of canonical limbs."""
    return [sum(int(limb) << 32 * i for i, limb in enumerate(column)) for column in x.T]


def summary(ring: Ring, x: Element) -> dict[str, str]:
    """Return what tells whether an element is the right one, without all of its bytes."""
    values = integers(x[:, [0, -1]])
    digest = hashlib.sha256(ring.to_bytes(x)).hexdigest()
    return {"first": f"{values[0]:x}", "last": f"{values[1]:x}", "sha256": digest}


def small_summary(values: Any) -> dict[str, Any]:
    """Return the same of small numbers; each is one signed byte in the hash."""
    digest = hashlib.sha256(values.astype("i1").tobytes()).hexdigest()
    return {"first": [int(value) for value in values[:8]], "sha256": digest}


# -- hashes ----------------------------------------------------------------------------------------


def hash_vector(name: str, section: str, domain: str, parts: list[bytes], digest: bytes) -> Vector:
    """Return a known answer of H, made by the function that the protocol calls."""
    inputs = {"domain": domain, "parts": [part.hex() for part in parts]}
    return known(name, section, inputs, digest.hex())


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def long_number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def hashes() -> list[Vector]:
    """Return one known answer of each domain."""
    plan = make_plan(SessionParameters(2, 2, 64, 10))
    identities = {1: fixed("identity 1"), 2: fixed("identity 2")}
    joins = [
        Join(
            index=i,
            exchange_key=fixed(f"x {i}"),
            entropy=fixed(f"entropy {i}"),
            signature=fixed(f"s {i}", 64),
            encapsulation_key=fixed(f"kem {i}", 1184),
        )
        for i in (1, 2)
    ]
    commits = [Commit(i, fixed(f"commitment {i}"), b"") for i in (1, 2)]
    epoch = setup.epoch_parts(plan, identities)
    candidates = [p for i, key in identities.items() for p in (number(i), key)]
    joined = setup.joins_digest(identities, joins)
    join_parts = [
        part
        for j in joins
        for part in (
            number(j.index),
            identities[j.index],
            j.exchange_key,
            j.encapsulation_key,
            j.entropy,
            j.signature,
        )
    ]
    session = setup.session_name(epoch, joined)
    ring = Ring(KEY_RING)
    b = sampling.expand(ring, fixed("b"), "collective key")
    key = CollectiveKey(ring, b, b)
    name = setup.transcript(session, commits, (1, 2), key)
    commit_parts = [p for c in commits for p in (number(c.index), c.commitment)]
    request = Request(name, 3, 2, (1, 2), b"c1 of the sum", (1, 2))
    aggregate = [name, long_number(3), number(0), b"", number(1), number(1) + number(2)]
    salt = fixed("salt")
    divided = replace(request, c1=b"c1 and c1", draw=Draw(5, 2, salt))
    drawn = [name, long_number(3), number(5), salt, number(2), number(1) + number(2), b"c1 and c1"]
    pledges = (Pledge(1, fixed("pledge 1")), Pledge(2, fixed("pledge 2")))
    statement = Statement(name, 3, model_digest(b"model"), pledges)
    listed = b"".join(number(p.index) + p.digest for p in pledges)
    shown = derive_seed("client c1", b"c1")
    stated = [name, long_number(3), number(0), b"", number(1), model_digest(b"model"), listed]
    zero_share, crs = fixed("zero-share key"), setup.reference_seed(joined)
    commitment = setup.commitment_of(session, 2, fixed("nonce"), b"b_2")
    context = setup.key_share_context(session, 2, fixed("nonce"))
    nonce = [session, number(2), fixed("nonce")]
    return [
        hash_vector("no parts", "4.1", "name", [], derive_seed("name")),
        hash_vector(
            "parts", "4.1", "name", [b"ab", b"", b"c"], derive_seed("name", b"ab", b"", b"c")
        ),
        hash_vector("candidates", "4.2", "candidates", candidates, epoch[6]),
        hash_vector("joins", "4.2", "joins", join_parts, joined),
        hash_vector("session", "4.2", "session", [*epoch, joined], session),
        hash_vector("crs", "4.2", "crs", [joined], crs),
        hash_vector("commitment", "4.2", "commitment", [*nonce, b"b_2"], commitment),
        hash_vector(
            "commitments",
            "4.2",
            "commitments",
            commit_parts,
            derive_seed("commitments", *commit_parts),
        ),
        hash_vector(
            "qualified",
            "4.2",
            "qualified",
            [number(1), number(2)],
            derive_seed("qualified", number(1), number(2)),
        ),
        hash_vector(
            "transcript",
            "4.2",
            "transcript",
            [
                session,
                derive_seed("commitments", *commit_parts),
                derive_seed("qualified", number(1), number(2)),
                number(1),
                ring.to_bytes(b),
            ],
            name,
        ),
        hash_vector(
            "aggregate", "4.2", "aggregate", [*aggregate, b"c1 of the sum"], request.aggregate
        ),
        hash_vector(
            "request",
            "4.2",
            "request",
            [request.aggregate, long_number(2), number(1) + number(2)],
            request.label,
        ),
        hash_vector(
            "mask",
            "4.2",
            "mask",
            [zero_share, request.label, number(0), number(0)],
            request.mask_seed(zero_share),
        ),
        hash_vector(
            "smudging",
            "4.2",
            "smudging",
            [fixed("smudging key"), request.label, number(0), number(0)],
            request.smudging_seed(fixed("smudging key")),
        ),
        hash_vector("salt", "4.2", "salt", [salt], partition.salt_digest(salt)),
        hash_vector("aggregate of groups", "4.2", "aggregate", drawn, divided.aggregate),
        hash_vector(
            "mask of a group",
            "4.2",
            "mask",
            [zero_share, divided.label, number(1), number(0)],
            divided.mask_seed(zero_share, 1),
        ),
        hash_vector("pledge", "4.2", "pledge", [name, b"c1"], c1_digest(name, b"c1")),
        hash_vector("model", "4.2", "model", [b"model"], model_digest(b"model")),
        hash_vector("statement", "4.2", "statement", stated, statement.digest()),
        hash_vector("client c1", "4.2", "client c1", [b"c1"], shown),
        hash_vector(
            "client proof",
            "4.2",
            "client proof",
            [name, long_number(3), number(2), number(0), shown, number(1)],
            proof_context(name, 3, 2, b"c1", 1),
        ),
        hash_vector("key share", "4.2", "key share", nonce, context),
        hash_vector(
            "confirmation", "4.2", "confirmation", [name], derive_seed("confirmation", name)
        ),
    ]


def signatures() -> list[Vector]:
    """Return signatures; Ed25519 leaves nothing to chance."""
    private = fixed("identity")
    key = Ed25519PrivateKey.from_private_bytes(private)
    public = key.public_key().public_bytes_raw()
    vectors = []
    for purpose in ("join", "commit", "reveal", "ready", "return", "contribution"):
        parts = [fixed(f"{purpose} {i}", 5 + i) for i in range(3)]
        inputs: dict[str, Any] = {
            "private": private.hex(),
            "public": public.hex(),
            "purpose": purpose,
        }
        inputs |= {"parts": [part.hex() for part in parts]}
        signature = sealing.sign(key, purpose, *parts).hex()
        vectors.append(known(f"signature for {purpose}", "4.3", inputs, signature))
    return vectors


# -- parameters ------------------------------------------------------------------------------------

SETS: dict[str, SessionParameters] = {
    "eight clients": SessionParameters(8, 4, 199_668, 100),
    "two clients": SessionParameters(2, 2, 64, 10),
    "direct": SessionParameters(4, 3, 5000, 10, encryption="direct", decryptors=3),
    "without robustness": SessionParameters(3, 3, 1000, 5, robust=False, value_bits=12),
    "groups": SessionParameters(32, 17, 199_668, 100, min_contributors=4, max_groups=8),
    "verified": SessionParameters(8, 6, 199_668, 100, verified=True, max_corrupt=3),
    "proving": SessionParameters(8, 4, 199_668, 100, verify_clients=True),
    "five hundred": SessionParameters(500, 250, 199_668, 100),
}


def derived(plan: Plan) -> dict[str, Any]:
    """Return what the digest covers beside the parameters."""
    return {
        "threshold": asdict(plan.threshold),
        "payload": asdict(plan.payload) if plan.payload else None,
        "budget": plan.budget,
        "noise": ceil(1000 * log2(plan.noise)),
        "smudging": ceil(1000 * log2(plan.smudging)),
        "dropped_c0": plan.dropped_c0,
        "dropped_share": plan.dropped_share,
        "dropped_body": plan.dropped_body,
    }


def plans() -> list[Vector]:
    """Return the digests of a few sets of parameters."""
    vectors = []
    for name, parameters in SETS.items():
        plan = make_plan(parameters)
        document = [PROTOCOL_VERSION, asdict(parameters), derived(plan)]
        vectors.append(known(name, "5", {"document": document}, plan.digest.hex()))
    return vectors


# -- streams and elements --------------------------------------------------------------------------


def streams() -> list[Vector]:
    """Return what is drawn from a keystream."""
    seed = fixed("stream")
    base: dict[str, Any] = {"seed": seed.hex()}
    source = RandomSource(seed)
    cut = source.bytes(5).hex() + source.bytes(40).hex()
    vectors = [known("keystream", "6.1", base | {"kind": "bytes", "count": 45}, cut)]
    for count in (10, 4096, 16384):
        values = sampling.ternary(RandomSource(seed), count)
        inputs = base | {"kind": "ternary", "count": count}
        vectors.append(known(f"ternary, {count}", "6.2", inputs, small_summary(values)))
    again = b"".join(bytes([i % 256]) for i in range(32))
    late = next(s for s in (fixed(f"second draw {i}") for i in range(100)) if second_draw(s))
    values = sampling.ternary(RandomSource(late), 16384)
    inputs = {"seed": late.hex(), "kind": "ternary", "count": 16384}
    vectors.append(known("ternary, with a second draw", "6.2", inputs, small_summary(values)))
    for pairs in (21, 41):
        values = sampling.centred_binomial(RandomSource(again), 100, pairs)
        inputs = {"seed": again.hex(), "kind": "binomial", "count": 100, "pairs": pairs}
        vectors.append(known(f"binomial, {pairs} pairs", "6.3", inputs, small_summary(values)))
    for parameters in RINGS:
        ring = Ring(parameters)
        inputs = base | {"kind": "uniform", "ring": parameters.name}
        element = sampling.uniform(RandomSource(seed), ring)
        vectors.append(known(f"uniform, {parameters.name}", "6.4", inputs, summary(ring, element)))
        for name, block in (("collective key", 0), ("payload", 2)):
            element = sampling.expand(ring, seed, name, block)
            inputs = base | {"kind": "expand", "ring": parameters.name}
            inputs |= {"name": name, "block": block}
            title = f"expand, {name} {block}, {parameters.name}"
            vectors.append(known(title, "6.5", inputs, summary(ring, element)))
    return vectors


def second_draw(seed: bytes) -> bool:
    """Return whether more than 64 of the first 16,448 bytes are 255."""
    return RandomSource(seed).bytes(16384 + 64).count(255) > 64


def elements() -> list[Vector]:
    """Return elements as bytes, whole and with low bytes left out."""
    vectors = []
    for parameters in RINGS:
        ring = Ring(parameters)
        x = sampling.uniform(RandomSource(fixed("element")), ring)[:, :3]
        # q - 1: with the middle of what was left out it would not be below q.
        x[:, 2] = ring.from_small(Small(np.full(ring.degree, -1)))[:, 2]
        for dropped in (0, 3, 4, 7, 9):
            data = ring.to_bytes(Element(Limbs(np.ascontiguousarray(x))), dropped)
            back = integers(ring.from_bytes(data, 3, dropped))
            inputs = {
                "ring": parameters.name,
                "dropped": dropped,
                "coefficients": [f"{value:x}" for value in integers(x)],
            }
            output = {"bytes": data.hex(), "read": [f"{value:x}" for value in back]}
            vectors.append(known(f"{parameters.name} without {dropped} bytes", "7", inputs, output))
    return vectors


def packings() -> list[Vector]:
    """Return packed values; the largest value of every slot is among them."""
    vectors = []
    layouts = {
        "payload": SlotLayout(DATA_RING, 21, 19, 9, 100),
        "keys": SlotLayout(KEY_RING, 68, 10, 2, 100),
        "direct": SlotLayout(LARGE_RING, 90, 20, 15, 100),
    }
    for name, layout in layouts.items():
        ring = Ring(layout.ring)
        stream = RandomSource(fixed(f"values {name}"))
        words = stream.words(100) >> np.uint64(64 - layout.slot_bits)
        values = words.astype(np.int64)
        values[0] = (1 << layout.slot_bits) - 1
        packed = ring.reduce(packing.pack(layout, packing.arrange(layout, values)))
        inputs = {
            "noise_bits": layout.noise_bits,
            "slot_bits": layout.slot_bits,
            "slots": layout.slots,
            "values": [int(value) for value in values],
        }
        output = [f"{value:x}" for value in integers(packed)]
        vectors.append(known(f"packing, {name}", "8", inputs, output))
    return vectors


# -- the key ---------------------------------------------------------------------------------------


def sealings() -> list[Vector]:
    """Return what two clients share; the encapsulated secrets are given."""
    pair = {i: PairwiseKeys(i, fixed(f"x{i}"), fixed(f"kem{i}", 64)) for i in (2, 5)}
    session, text = fixed("session"), fixed("text", 100)
    # Each encapsulated to the other, whose key opens the ciphertext.
    sent = {i: encapsulate(pair[7 - i].encapsulation_key, fixed(f"m{i}")) for i in (2, 5)}

    def inputs(i: int, maker: int, **more: Any) -> dict[str, Any]:
        secret, ciphertext = sent[maker]
        return {
            "sender": i,
            "receiver": 7 - i,
            "private": pair[i].private.hex(),
            "peer": pair[7 - i].public.hex(),
            "session": session.hex(),
            "secret": secret.hex(),
            "encapsulation_sha256": hashlib.sha256(ciphertext).hexdigest(),
            **more,
        }

    def shared(peer: int, maker: int) -> Encapsulated:
        secret, ciphertext = sent[maker]
        return Encapsulated(peer, secret, hashlib.sha256(ciphertext).digest())

    vectors = []
    for i, own in pair.items():
        sealed = own.seal(pair[7 - i].public, session, text, shared(7 - i, i))
        given = inputs(i, i, kind="seal", text=text.hex())
        vectors.append(known(f"seal from {i} to {7 - i}", "9.1", given, sealed.hex()))
    for i, own in pair.items():
        key = own.zero_share_key(pair[7 - i].public, session, shared(7 - i, 2))
        given = inputs(i, 2, kind="zero-share")
        vectors.append(known(f"zero-share key of {i}", "9.3", given, key.hex()))
    _, ciphertext = sent[2]
    changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    for name, data in (("what 2 encapsulated", ciphertext), ("the same, changed", changed)):
        given = {"kind": "decapsulate", "seed": pair[5].seed.hex(), "ciphertext": data.hex()}
        found = pair[5].decapsulate(2, data).secret
        output = {"public": pair[5].encapsulation_key.hex(), "secret": found.hex()}
        vectors.append(known(name, "9.1", given, output))
    return vectors


def sharings() -> list[Vector]:
    """Return Shamir shares and the factors that put them together."""
    ring = Ring(KEY_RING)
    seed = fixed("polynomial")
    secret = sampling.ternary(RandomSource(fixed("s")), ring.degree)
    source = RandomSource(seed)
    shares = sharing.gen_shares(ring, ring.from_small(secret), 3, (1, 4), source)
    vectors = []
    for point, share in shares.items():
        inputs = {
            "kind": "share",
            "secret_seed": fixed("s").hex(),
            "seed": seed.hex(),
            "threshold": 3,
            "point": point,
        }
        vectors.append(known(f"share of client {point}", "9.2", inputs, summary(ring, share)))
    for index, active in ((1, (1, 2)), (4, (1, 4, 7)), (7, (1, 4, 7))):
        factor = sharing.lagrange_coefficient(ring.modulus, index, active)
        inputs = {"kind": "factor", "ring": "key", "index": index, "active": list(active)}
        vectors.append(known(f"factor of {index} in {active}", "9.2", inputs, f"{factor:x}"))
    return vectors


def encryptions() -> list[Vector]:
    """Return elements that follow from seeds: a key share, and what confirms a key."""
    ring = Ring(KEY_RING)
    crs, own, name = fixed("crs"), fixed("key share"), fixed("T")
    reference = common_reference(ring, crs)
    share = gen_share(ring, reference, RandomSource(own))
    inputs: dict[str, Any] = {"kind": "key share", "crs_seed": crs.hex(), "seed": own.hex()}
    vectors = [known("b_i from s_i and e_i", "9", inputs, summary(ring, share.public))]
    plan = make_plan(SessionParameters(2, 2, 64, 10))
    key = CollectiveKey(ring, reference, share.public)
    message, ciphertext = confirmation.ciphertext(plan, key, name)
    layout = plan.threshold_layout(0)
    inputs = {
        "kind": "confirmation",
        "crs_seed": crs.hex(),
        "seed": own.hex(),
        "transcript": name.hex(),
        "noise_bits": plan.encryption_layout(0).noise_bits,
        "slot_bits": layout.slot_bits,
        "slots": layout.slots,
    }
    output: dict[str, Any] = {
        "message": [int(value) for value in message[:8]],
        "c0": summary(ring, ciphertext.c0),
        "c1": summary(ring, ciphertext.c1),
    }
    vectors.append(known("what confirms a key", "10", inputs, output))
    proof = ShortnessProof(ring, reference)
    data = proof.prove(share.public, share.opening, b"context", RandomSource(fixed("masks")))
    inputs = {
        "kind": "proof",
        "crs_seed": crs.hex(),
        "seed": own.hex(),
        "context": b"context".hex(),
        "masks": fixed("masks").hex(),
    }
    output = {"challenge": data[:32].hex(), "sha256": hashlib.sha256(data).hexdigest()}
    return [*vectors, known("proof for b_i", "13.1", inputs, output)]


# -- what a client sends ---------------------------------------------------------------------------


def updates() -> list[Vector]:
    """Return an update as integers, and what a server and a client add in clear."""
    rng = np.random.default_rng(0)
    vectors = []
    for bits in (16, 12):
        half = (1 << bits - 1) - 1
        reach = 0.5
        # Multiples of the step: whatever the rounding draws, nothing is rounded.
        steps = np.array([0, 1, -1, half, -half, 7])
        counts = Counts(1.25, 0.75, 600, 1.5)
        values = quantise(steps * (reach / half), reach, bits, counts, rng)
        inputs = {
            "kind": "values",
            "value_bits": bits,
            "range": reach,
            "update": [float(value) for value in steps * (reach / half)],
            "loss": 1.25,
            "accuracy": 0.75,
            "samples": 600,
            "weight": 1.5,
        }
        output = [int(value) for value in values]
        vectors.append(known(f"values of {bits} bits", "11.1", inputs, output))
    model = RoundModel(np.array([1.0, -0.5, 0.25], np.float32), PublicRange(0.125), 600.0)
    inputs = {"kind": "model", "weights": [1.0, -0.5, 0.25], "range": 0.125, "reference": 600.0}
    vectors.append(known("a model", "11.3", inputs, model.to_bytes().hex()))
    inputs = {"kind": "note", "train": 1.5, "encrypt": 0.25}
    return [*vectors, known("a note", "11.4", inputs, Timings(1.5, 0.25).to_bytes().hex())]


def plain(value: Any) -> Any:
    """Return a message as lists, numbers and texts; bytes behind "0x"."""
    if is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return "0x" + value.hex() if isinstance(value, bytes) else value


def example(hint: Any, depth: int = 1) -> Any:
    """Return a message or field in which nothing is empty."""
    if get_origin(hint) is tuple:
        return (example(get_args(hint)[0], depth + 1), example(get_args(hint)[0], depth + 2))
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(
            **{f.name: example(hints[f.name], depth + i) for i, f in enumerate(fields(hint))}
        )
    return {int: 7 * depth**4, bytes: bytes([depth]) * (9 * depth), str: "a reason " * depth}[hint]


def messages() -> list[Vector]:
    """Return one message of each kind."""
    vectors = []
    for kind, wire_number in NUMBERS.items():
        message = example(kind)
        inputs = {"number": wire_number, "fields": plain(message)}
        encoded = codec.encode(message).hex()
        vectors.append(known(kind.__name__, f"3.{wire_number}", inputs, encoded))
    return vectors


# -- a whole session -------------------------------------------------------------------------------


def groups() -> list[Vector]:
    """Return how contributors are split, everybody there and with groups that are too small."""
    transcript, draw = fixed("T"), Draw(2, 4, fixed("salt"))
    vectors = []
    for away in ((), (2, 3, 5, 8), (1, 2, 3, 4, 6, 8, 9, 11)):
        there = [i for i in range(1, 19) if i not in away]
        inputs: dict[str, Any] = {"T": transcript.hex(), "number": 2, "salt": draw.salt.hex()}
        inputs |= {"groups": 4, "clients": 18, "min_contributors": 4, "contributors": there}
        split = partition.split(partition.runs(transcript, draw, 18), there, 4)
        output = [list(group) for group in split]
        vectors.append(known(f"groups of {len(there)} of 18", "12.5", inputs, output))
    return vectors


def session() -> list[Vector]:
    """Return every frame of a set-up and a round of two clients, and what nobody but they know."""
    simulation = Simulation(2, 2, 64, label="known answers", rounds=10)
    simulation.run_setup()
    rng = np.random.default_rng(1)
    values = {i: rng.integers(0, 1 << 16, 64) for i in (1, 2)}
    end = simulation.run_round(values)
    plan = simulation.plan
    clients = {}
    for index in simulation.clients:
        opening = simulation.key_shares[index].opening
        clients[str(index)] = {
            "identity": simulation.roster[index].hex(),
            "exchange_key": simulation.stages[index].exchange_key.hex(),
            "encapsulation_seed": simulation.stages[index].encapsulation_seed.hex(),
            "secret": opening.secret.astype("i1").tobytes().hex(),
            "error": opening.error.astype("i1").tobytes().hex(),
            "values": [int(value) for value in values[index]],
        }
    document = [PROTOCOL_VERSION, asdict(plan.session), derived(plan)]
    frames = [
        {"from": sender, "to": receiver, "frame": framed(codec.encode(message))}
        for sender, receiver, message in simulation.log
    ]
    if not isinstance(end, Summed):
        raise RuntimeError("the round of the known answers was abandoned")
    total = [int(value) for value in end.total]
    inputs = {"document": document, "clients": clients, "frames": frames}
    return [known("two clients, one round", "15", inputs, {"total": total})]


def framed(payload: bytes) -> str:
    """Return a payload behind its length."""
    return (encode_header(len(payload)) + payload).hex()


TOPICS = {
    "hashes": hashes,
    "signatures": signatures,
    "plans": plans,
    "streams": streams,
    "elements": elements,
    "packing": packings,
    "sealing": sealings,
    "sharing": sharings,
    "encryption": encryptions,
    "groups": groups,
    "updates": updates,
    "messages": messages,
    "session": session,
}


def write(folder: Path) -> None:
    """Write one file a topic."""
    for topic, make in TOPICS.items():
        text = json.dumps(make(), indent=1) + "\n"
        (folder / f"{topic}.json").write_text(text)


if __name__ == "__main__":
    write(FOLDER)
