"""The known answers: generated, not edited; found again by a reader that shares no code with us."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from mphe.wire.messages import (
    NUMBERS,
    Draw,
    Evidence,
    Group,
    KeyReveal,
    Pledge,
    SealedShare,
    Vouch,
)
from tests.vectors import generate, prover, reader
from tests.vectors.reader import Ring, Stream

FOLDER = Path(__file__).parent
WIRE = FOLDER.parents[1] / "docs" / "wire.md"
KNOWN: list[tuple[str, dict[str, Any]]] = [
    (topic, vector)
    for topic in generate.TOPICS
    if topic != "session"
    for vector in json.loads((FOLDER / f"{topic}.json").read_text())
]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def summary(ring: Ring, x: list[int]) -> dict[str, str]:
    digest = hashlib.sha256(ring.write(x)).hexdigest()
    return {"first": f"{x[0]:x}", "last": f"{x[-1]:x}", "sha256": digest}


def small_summary(values: list[int]) -> dict[str, Any]:
    digest = hashlib.sha256(bytes(value % 256 for value in values)).hexdigest()
    return {"first": values[:8], "sha256": digest}


def hashes(i: dict[str, Any]) -> str:
    return reader.hashed(i["domain"], *map(raw, i["parts"])).hex()


def signatures(i: dict[str, Any]) -> str:
    parts = [raw(part) for part in i["parts"]]
    public, signature = reader.sign(raw(i["private"]), i["purpose"], *parts)
    assert public == raw(i["public"])
    reader.verify(public, signature, i["purpose"], *parts)
    return signature.hex()


def plans(i: dict[str, Any]) -> str:
    return reader.plan_digest(i["document"]).hex()


def streams(i: dict[str, Any]) -> Any:
    stream = Stream(raw(i["seed"]))
    if i["kind"] == "bytes":
        return stream.take(i["count"]).hex()
    if i["kind"] == "ternary":
        return small_summary(stream.ternary(i["count"]))
    if i["kind"] == "binomial":
        return small_summary(stream.binomial(i["count"], i["pairs"]))
    ring = Ring(i["ring"])
    if i["kind"] == "uniform":
        return summary(ring, stream.uniform(ring))
    return summary(ring, ring.expand(raw(i["seed"]), i["name"], i["block"]))


def elements(i: dict[str, Any]) -> Any:
    ring = Ring(i["ring"])
    x = [int(value, 16) for value in i["coefficients"]]
    data = ring.write(x, i["dropped"])
    read = ring.read(data, len(x), i["dropped"])
    return {"bytes": data.hex(), "read": [f"{value:x}" for value in read]}


def packing(i: dict[str, Any]) -> list[str]:
    packed = reader.pack(i["values"], i["noise_bits"], i["slot_bits"], i["slots"])
    return [f"{value:x}" for value in packed]


def sealing(i: dict[str, Any]) -> Any:
    if i["kind"] == "decapsulate":
        public, secret = reader.decapsulate(raw(i["seed"]), raw(i["ciphertext"]))
        return {"public": public.hex(), "secret": secret.hex()}
    names = i["sender"], i["receiver"]
    ends = sorted(names) if i["kind"] == "zero-share" else names
    session, label = raw(i["session"]), i["kind"]
    own = raw(i["private"]), raw(i["peer"]), raw(i["secret"])
    key = reader.pairwise(*own, raw(i["encapsulation_sha256"]), session, label, *ends)
    if i["kind"] == "zero-share":
        return key.hex()
    sealed = reader.seal(key, session, *names, raw(i["text"]))
    assert reader.unseal(key, session, *names, sealed) == raw(i["text"])
    return sealed.hex()


def sharing(i: dict[str, Any]) -> Any:
    ring = Ring(i.get("ring", "key"))
    if i["kind"] == "factor":
        return f"{reader.factor(ring.q, i['index'], i['active']):x}"
    secret = Stream(raw(i["secret_seed"])).ternary(ring.degree)
    seed = raw(i["seed"])
    return summary(ring, reader.share_of(ring, secret, seed, i["threshold"], i["point"]))


def encryption(i: dict[str, Any]) -> Any:
    ring = Ring("key")
    a, stream = ring.expand(raw(i["crs_seed"]), "collective key"), Stream(raw(i["seed"]))
    s = stream.ternary(ring.degree)
    e = stream.binomial(ring.degree, reader.ERROR_PAIRS)
    b = ring.add(ring.multiply(a, s), e)
    if i["kind"] == "key share":
        return summary(ring, b)
    if i["kind"] == "proof":
        proof = prover.prove(ring, a, b, s, e, raw(i["context"]), raw(i["masks"]))
        return {"challenge": proof[:32].hex(), "sha256": hashlib.sha256(proof).hexdigest()}
    message, c0, c1 = reader.confirming(ring, a, b, raw(i["transcript"]), i)
    return {"message": message[:8], "c0": summary(ring, c0), "c1": summary(ring, c1)}


def updates(i: dict[str, Any]) -> Any:
    if i["kind"] == "values":
        return reader.update_values(i)
    if i["kind"] == "model":
        return reader.model_bytes(i["weights"], i["range"], i["reference"]).hex()
    return reader.encode([i["train"], i["encrypt"]]).hex()


def messages(i: dict[str, Any]) -> str:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(item) for item in value]
        return raw(value[2:]) if isinstance(value, str) and value.startswith("0x") else value

    whole = [reader.VERSION, i["number"], *read(i["fields"])]
    encoded = reader.encode(whole)
    assert reader.decode(encoded) == whole
    return encoded.hex()


def groups(i: dict[str, Any]) -> list[list[int]]:
    head = (raw(i["T"]), reader.short(i["number"]), raw(i["salt"]))
    n, count, there = i["clients"], i["groups"], set(i["contributors"])
    order = sorted(
        range(1, n + 1), key=lambda j: reader.hashed("partition", *head, reader.short(j))
    )
    found: list[list[int]] = []
    taken: list[int] = []
    for run in range(count):
        size = n // count + (run < n % count)
        taken += sorted(there & set(order[:size]))
        del order[:size]
        if len(taken) >= i["min_contributors"]:
            found.append(taken)
            taken = []
    found[-1] += taken
    return [sorted(group) for group in found]


READERS = {
    function.__name__: function
    for function in (
        *(hashes, signatures, plans, streams, elements, packing),
        *(sealing, sharing, encryption, groups, updates, messages),
    )
}


@pytest.mark.parametrize(
    ("topic", "vector"), KNOWN, ids=[f"{topic}: {vector['name']}" for topic, vector in KNOWN]
)
def test_a_second_reader_finds_the_same(topic: str, vector: dict[str, Any]) -> None:
    assert READERS[topic](vector["inputs"]) == vector["output"]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    generate.write(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in FOLDER.glob("*.json"))
    for name in written:
        assert (FOLDER / name).read_bytes() == (tmp_path / name).read_bytes(), (
            f"{name}: run python -m tests.vectors.generate"
        )


def test_there_are_enough_known_answers_and_each_has_its_place_in_the_document() -> None:
    assert len(KNOWN) >= 40
    headings = set(re.findall(r"^#+ ([\d.]+) ", WIRE.read_text(), re.MULTILINE))
    sections = {vector["section"] for _, vector in KNOWN}
    assert {"15"} | sections <= headings
    assert all(set(vector) == {"name", "section", "inputs", "output"} for _, vector in KNOWN)


def written(hint: Any) -> str:
    """Return how the document calls the type of a field."""
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return "integers" if inner is int else f"list of {inner.__name__}"
    return {int: "integer", bytes: "bytes", str: "text"}.get(hint) or str(hint.__name__)


def declared(record: type[Any]) -> list[tuple[str, str]]:
    hints = get_type_hints(record)
    return [(field.name, written(hints[field.name])) for field in fields(record)]


@pytest.mark.parametrize("cls", NUMBERS, ids=lambda cls: cls.__name__)
def test_the_document_lists_the_fields_of_every_message(cls: type[Any]) -> None:
    _, _, rest = WIRE.read_text().partition(f"\n### 3.{NUMBERS[cls]} {cls.__name__}\n")
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    assert re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", section, re.MULTILINE) == declared(cls)


@pytest.mark.parametrize(
    "cls", [KeyReveal, SealedShare, Vouch, Pledge, Draw, Group, Evidence], ids=lambda c: c.__name__
)
def test_the_document_lists_the_fields_of_every_record(cls: type[Any]) -> None:
    (row,) = re.findall(rf"^\| `{cls.__name__}` \| (.*) \|$", WIRE.read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)` (\w+)", row) == declared(cls)


ALLOWED = {"hashlib", "json", "struct", "typing", "cryptography", "__future__"}


@pytest.mark.parametrize("name", ["reader.py", "prover.py"])
def test_the_reader_shares_no_code_with_us(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert len(text.splitlines()) < 400
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            theirs = node.module != "tests.vectors.reader"
            imported |= {(node.module or "").split(".")[0]} if theirs else set()
        elif isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") not in ("__import__", "eval", "exec")
    assert imported <= ALLOWED
