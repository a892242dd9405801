"""A second reader of the wire, in plain Python integers, from docs/wire.md alone.

It knows neither mphe nor NumPy. Elements are lists of N integers; a product is one product of two
huge integers (Kronecker). It takes a plan as given (planner.py finds one) and
follows no verified round (prover.py makes a proof; nothing here reads one).
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 4
RINGS = {"key": (4096, 3, 17), "data": (8192, 6, 237), "large": (16384, 13, 435)}
ERROR_PAIRS, KEY_PAIRS = 21, 41
Element = list[int]


# -- 2: encoding -----------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Return the shortest msgpack of a number, text, byte string, float or list."""
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int):
        for limit, kind, size in ((1 << 7, "", 1), (1 << 8, "cc", 1), (1 << 16, "cd", 2),
                                  (1 << 32, "ce", 4), (1 << 64, "cf", 8)):  # fmt: skip
            if value < limit:
                return bytes.fromhex(kind) + value.to_bytes(size, "big")
    if isinstance(value, str):
        text = value.encode()
        short_head = bytes([0xA0 | len(text)]) if len(text) < 32 else b""
        return (short_head or _head(len(text), ("d9", "da", "db"))) + text
    if isinstance(value, bytes):
        return _head(len(value), ("c4", "c5", "c6")) + value
    head = bytes([0x90 | len(value)]) if len(value) < 16 else _head(len(value), ("", "dc", "dd"))
    return head + b"".join(map(encode, value))


def _head(length: int, kinds: tuple[str, str, str]) -> bytes:
    kind = kinds[0] if length < 1 << 8 and kinds[0] else kinds[1] if length < 1 << 16 else kinds[2]
    return bytes.fromhex(kind) + length.to_bytes(1 << kinds.index(kind), "big")


def decode(data: bytes) -> Any:
    """Return the one value that these bytes are."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("bytes behind the value")
    return value


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    if first >> 4 == 9:
        return _list(data, at, first & 15)
    if first >> 5 == 5:
        return data[at : at + (first & 31)].decode(), at + (first & 31)
    size = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2,
            0xDB: 4, 0xDC: 2, 0xDD: 4}[first]  # fmt: skip
    number, at = int.from_bytes(data[at : at + size], "big"), at + size
    if first in (0xDC, 0xDD):
        return _list(data, at, number)
    if 0xCC <= first <= 0xCF:
        return number, at
    part = data[at : at + number]
    return part if first < 0xCC else part.decode(), at + number


def _list(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):
        item, at = _decode(data, at)
        items.append(item)
    return items, at


# -- 4: hashes -------------------------------------------------------------------------------------


def hashed(domain: str, *parts: bytes) -> bytes:
    """Return H."""
    text = b"".join(len(p).to_bytes(8, "big") + p for p in (domain.encode(), *parts))
    return hashlib.sha256(text).digest()


def short(value: int) -> bytes:
    return value.to_bytes(4, "big")


def long(value: int) -> bytes:
    return value.to_bytes(8, "big")


def sign(private: bytes, purpose: str, *parts: bytes) -> tuple[bytes, bytes]:
    """Return the public key and a signature."""
    key = Ed25519PrivateKey.from_private_bytes(private)
    signature = key.sign(hashed("signature/" + purpose, *parts))
    return key.public_key().public_bytes_raw(), signature


def verify(public: bytes, signature: bytes, purpose: str, *parts: bytes) -> None:
    """Raise unless the signature is right."""
    key = Ed25519PublicKey.from_public_bytes(public)
    key.verify(signature, hashed("signature/" + purpose, *parts))


# -- 6: streams ------------------------------------------------------------------------------------


class Stream:
    """AES-256 in counter mode from a block of zeros."""

    def __init__(self, seed: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()

    def take(self, count: int) -> bytes:
        return self._cipher.update(bytes(count))

    def words(self, count: int, size: int = 8) -> list[int]:
        data = self.take(size * count)
        return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]

    def ternary(self, count: int) -> list[int]:
        values: list[int] = []
        while len(values) < count:
            values += [byte % 3 - 1 for byte in self.take(count + 64) if byte < 255]
        return values[:count]

    def binomial(self, count: int, pairs: int) -> list[int]:
        bits = [(word & ((1 << pairs) - 1)).bit_count() for word in self.words(2 * count)]
        return [bits[i] - bits[count + i] for i in range(count)]

    def uniform(self, ring: Ring) -> Element:
        values = ring.join(self.words(ring.limbs * ring.degree, 4), ring.degree)
        while wrong := [i for i, value in enumerate(values) if value >= ring.q]:
            again = ring.join(self.words(ring.limbs * len(wrong), 4), len(wrong))
            for i, value in zip(wrong, again, strict=True):
                values[i] = value
        return values


# -- 7, 8: elements --------------------------------------------------------------------------------


class Ring:
    """Z_q[X]/(X^N + 1)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.degree, self.limbs, subtrahend = RINGS[name]
        self.q = (1 << 32 * self.limbs) - subtrahend
        self.size = 4 * self.limbs

    def join(self, words: list[int], count: int) -> Element:
        """Return the coefficients of limbs that stand one whole limb after the other."""
        return [
            sum(words[limb * count + i] << 32 * limb for limb in range(self.limbs))
            for i in range(count)
        ]

    def write(self, x: Element, dropped: int = 0) -> bytes:
        """Return an element's bytes."""
        skipped, part = divmod(dropped, 4)
        rows = [value.to_bytes(self.size, "little") for value in x]
        planes = [bytes(row[k] for row in rows) for k in range(4 * skipped + part, 4 * skipped + 4)]
        out = b"".join(planes) if part else b""
        for limb in range(skipped + bool(part), self.limbs):
            out += b"".join(row[4 * limb : 4 * limb + 4] for row in rows)
        return out

    def read(self, data: bytes, count: int, dropped: int = 0) -> Element:
        """Read `write`; the middle of what was left out takes its place."""
        if len(data) != count * (self.size - dropped):
            raise ValueError("wrong length")
        skipped, part = divmod(dropped, 4)
        rows = [bytearray(self.size) for _ in range(count)]
        at = 0
        for k in range(4 * skipped + part, 4 * skipped + 4) if part else ():
            for i in range(count):
                rows[i][k] = data[at + i]
            at += count
        for limb in range(skipped + bool(part), self.limbs):
            for i in range(count):
                rows[i][4 * limb : 4 * limb + 4] = data[at + 4 * i : at + 4 * i + 4]
            at += 4 * count
        values = [int.from_bytes(row, "little") for row in rows]
        if dropped:
            return [(value + (1 << 8 * dropped - 1)) % self.q for value in values]
        if any(value >= self.q for value in values):
            raise ValueError("a residue is not below q")
        return values

    def multiply(self, x: Element, y: Element) -> Element:
        """Return the product of two elements of N coefficients, which may be negative."""
        left, right = [v % self.q for v in x], [v % self.q for v in y]
        width = (2 * self.q.bit_length() + self.degree.bit_length()) // 8 + 1
        big = [int.from_bytes(b"".join(v.to_bytes(width, "little") for v in z), "little")
               for z in (left, right)]  # fmt: skip
        data = (big[0] * big[1]).to_bytes(2 * width * self.degree, "little")
        full = [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]
        return [(full[i] - full[self.degree + i]) % self.q for i in range(self.degree)]

    def add(self, *elements: Element) -> Element:
        return [sum(column) % self.q for column in zip(*elements, strict=True)]

    def expand(self, crs: bytes, name: str, block: int = 0) -> Element:
        """Return a reference polynomial that everybody derives."""
        label = f"{name}/{self.name}".encode()
        return Stream(hashed("reference", crs, label, short(block))).uniform(self)

    def centred(self, value: int) -> int:
        value %= self.q
        return value - self.q if value > self.q // 2 else value


def pack(values: list[int], noise_bits: int, slot_bits: int, slots: int) -> Element:
    """Return values side by side above the noise."""
    count = -(-len(values) // slots)
    packed = [0] * count
    for i, value in enumerate(values):
        packed[i % count] += value << noise_bits + i // count * slot_bits
    return packed


def unpack(x: Element, layout: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the values, and the noise below them; anything above them is an error."""
    noise_bits, slot_bits, slots = (layout[k] for k in ("noise_bits", "slot_bits", "slots"))
    half, mask = 1 << noise_bits - 1, (1 << slot_bits) - 1
    ring = Ring(layout["ring"]["name"])
    shifted = [(value + half) % ring.q for value in x]
    if any(value >> noise_bits + slots * slot_bits for value in shifted):
        raise ValueError("bits above the last slot")
    values = [v >> noise_bits + s * slot_bits & mask for s in range(slots) for v in shifted]
    return values[: layout["length"]], [v % (2 * half) - half for v in shifted]


# -- 9: the key ------------------------------------------------------------------------------------


def decapsulate(seed: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """Return the key that a seed of ML-KEM-768 makes public, and what the ciphertext holds."""
    key = MLKEM768PrivateKey.from_seed_bytes(seed)
    return key.public_key().public_bytes_raw(), key.decapsulate(ciphertext)


def pairwise(private: bytes, peer: bytes, secret: bytes, digest: bytes, salt: bytes, label: str,
             i: int, j: int) -> bytes:  # fmt: skip
    """Return a key of two clients: secret and digest are of what i encapsulated to j."""
    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(peer)) + secret
    info = label.encode() + short(i) + short(j) + digest
    return HKDF(SHA256(), 32, salt=salt, info=info).derive(shared)


def seal(key: bytes, session: bytes, sender: int, receiver: int, text: bytes) -> bytes:
    """Return a sealed share."""
    context = session + short(sender) + short(receiver)
    return ChaCha20Poly1305(key).encrypt(bytes(12), text, context)


def unseal(key: bytes, session: bytes, sender: int, receiver: int, sealed: bytes) -> bytes:
    """Open a sealed share."""
    context = session + short(sender) + short(receiver)
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, context)


def factor(q: int, index: int, active: list[int]) -> int:
    """Return λ."""
    top, bottom = 1, 1
    for other in active:
        if other != index:
            top, bottom = top * other % q, bottom * (other - index) % q
    return top * pow(bottom, -1, q) % q


def share_of(ring: Ring, secret: Element, seed: bytes, threshold: int, point: int) -> Element:
    """Return f(point); the polynomial's coefficients come from a stream."""
    stream = Stream(seed)
    uniform = [stream.uniform(ring) for _ in range(threshold - 1)]
    powers = [pow(point, d + 1, ring.q) for d in range(threshold - 1)]
    terms = zip(*uniform, strict=True)
    return [(s + sum(c * p for c, p in zip(column, powers, strict=True))) % ring.q
            for s, column in zip(secret, terms, strict=True)]  # fmt: skip


def confirming(ring: Ring, a: Element, b: Element, name: bytes, layout: dict[str, Any]) -> Any:
    """Return the message and the ciphertext that confirm a key."""
    stream = Stream(hashed("confirmation", name))
    words = stream.words(ring.degree * layout["slots"])
    message = [word >> 64 - layout["slot_bits"] + 1 for word in words]
    packed = pack(message, layout["noise_bits"], layout["slot_bits"], layout["slots"])
    u, e1 = stream.ternary(ring.degree), stream.binomial(ring.degree, ERROR_PAIRS)
    c1 = ring.add(ring.multiply(a, u), e1)
    e0 = stream.binomial(ring.degree, ERROR_PAIRS)
    return message, ring.add(ring.multiply(b, u), e0, packed), c1


# -- 11: contributions -----------------------------------------------------------------------------


def update_values(inputs: dict[str, Any]) -> list[int]:
    """Return an update and its counts; the update holds whole steps, so nothing is rounded."""
    bits = inputs["value_bits"]
    half = (1 << bits - 1) - 1
    values = [round(v * half / inputs["range"]) + half for v in inputs["update"]]
    counts = [sum(not 0 <= v <= 2 * half for v in values), round(inputs["loss"] / 1e-3)]
    counts += [round(inputs["accuracy"] / 1e-4), inputs["samples"], round(inputs["weight"] * 1024)]
    digits = range(-(-32 // bits))
    return values + [c >> bits * d & (1 << bits) - 1 for c in counts for d in digits]


def model_bytes(weights: list[float], reach: float, reference: float) -> bytes:
    """Return RoundStart.model."""
    return struct.pack(f"<Idd{len(weights)}f", 1, reach, reference, *weights)


def plan_digest(document: list[Any]) -> bytes:
    """Return the digest of version, parameters and plan."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


# -- 9, 12: names and labels -----------------------------------------------------------------------


def name_session(plan: bytes, identities: dict[int, bytes], joins: list[Any]) -> tuple[bytes, ...]:
    """Return what the joins sign, the session's name and crs_seed."""
    candidates = [part for i in sorted(identities) for part in (short(i), identities[i])]
    head = (short(VERSION), plan, b"", short(0), bytes(32), long(1))
    epoch = (*head, hashed("candidates", *candidates), b"")
    parts = []
    for index, exchange_key, entropy, signature, _, encapsulation_key in joins:
        parts += [short(index), identities[index], exchange_key]
        parts += [encapsulation_key, entropy, signature]
    joined = hashed("joins", *parts)
    return (*epoch, hashed("session", *epoch, joined), hashed("crs", joined))


def name_key(session: bytes, commits: list[Any], qualified: list[int], b: bytes) -> bytes:
    """Return T."""
    listed = [part for index, commitment, _ in commits for part in (short(index), commitment)]
    digests = hashed("commitments", *listed), hashed("qualified", *map(short, qualified))
    return hashed("transcript", session, *digests, short(1), b)


def mask(ring: Ring, key: bytes, request: dict[str, Any], blocks: int = 1) -> list[Element]:
    """Return the uniform elements that two decryptors add and subtract."""
    number, groups, salt = request["draw"]
    ((contributors, _),) = request["groups"]
    together = b"".join(map(short, contributors))
    digest = hashed("aggregate", request["transcript"], long(request["round"]), short(number),
                    salt, short(groups), together, request["c1"])  # fmt: skip
    active = b"".join(map(short, request["active"]))
    label = hashed("request", digest, long(request["attempt"]), active)
    stream = Stream(hashed("mask", key, label, short(0), short(0)))
    return [stream.uniform(ring) for _ in range(blocks)]
