"""Whatever bytes a peer sends: a message or the documented exception, and little memory."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from fl.model.round_model import RoundModel
from fl.report.timings import Timings
from mphe.errors import EncodingError, MalformedMessage
from mphe.net.frames import HEADER_SIZE, FrameError, FrameReader
from mphe.update import PublicRange
from mphe.wire.codec import decode, encode
from mphe.wire.messages import Message, Ready, SessionOpen
from tests.fuzz.fuzzing import SMALL_MESSAGES, damage, inputs, peak_of, traced

pytestmark = pytest.mark.timeout(3600)

SENDER = 7
CORPUS = [encode(message) for message in SMALL_MESSAGES]
LARGE = [encode(SessionOpen(tuple(range(4096)), ())), encode(Ready(b"", (1,) * 4096))]
OVERHEAD = 1 << 16
"""Bytes that do not depend on the input: an unpacker's stack, an exception with its traceback."""


def decoded(data: bytes) -> Message | None:
    """Decode, or return None for the documented exception; anything else is raised."""
    try:
        return decode(data, SENDER)
    except MalformedMessage as error:
        assert error.sender == SENDER and str(error)
        return None


def test_codec() -> None:
    understood = 0
    with traced():
        for number, rng in inputs("codec", 12_000):
            seed = rng.choice(LARGE if rng.random() < 0.01 else CORPUS)
            data = damage(seed, rng, CORPUS)
            message, peak = peak_of(lambda data=data: decoded(data))  # type: ignore[misc]
            # An empty record is 4 bytes on the wire and a Python object here.
            assert peak < OVERHEAD + 100 * len(data), number
            if message is not None:
                understood += 1
                assert decode(encode(message), SENDER) == message, number
    # Damage that is always noticed would reach no field behind the head.
    print(f"codec: {understood} understood")
    assert understood > 100


def test_undamaged_messages_are_understood() -> None:
    assert [decoded(data) for data in CORPUS] == list(SMALL_MESSAGES)


def make_stream(rng: Random) -> bytes:
    """Return frames of which some have a wrong length in front."""
    parts = []
    for _ in range(rng.randrange(6)):
        payload = rng.randbytes(rng.choice((1, 2, 5, 63, 64, 65, 300)))
        length = len(payload)
        if rng.random() < 0.2:
            length = rng.choice((0, 1, length - 1, length + 1, 64, 65, 1 << 24, (1 << 32) - 1))
        parts.append(length.to_bytes(HEADER_SIZE, "big") + payload)
    return b"".join(parts)


def cut_up(stream: bytes, limit: int) -> tuple[list[bytes], bool]:
    """Return the payloads before the first wrong header, and whether there is one."""
    payloads: list[bytes] = []
    at = 0
    while at + HEADER_SIZE <= len(stream):
        length = int.from_bytes(stream[at : at + HEADER_SIZE], "big")
        if not 0 < length <= limit:
            return payloads, True
        if at + HEADER_SIZE + length > len(stream):
            break
        payloads.append(stream[at + HEADER_SIZE : at + HEADER_SIZE + length])
        at += HEADER_SIZE + length
    return payloads, False


def chunks(stream: bytes, rng: Random) -> list[bytes]:
    """Return the stream in pieces."""
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(8)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read(reader: FrameReader, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the payloads before the piece with a wrong header, and whether there was one."""
    payloads: list[bytes] = []
    for piece in pieces:
        try:
            reader.feed(piece)
            while (payload := reader.take()) is not None:
                payloads.append(payload)
        except FrameError:
            return payloads, True
    return payloads, False


def test_frames() -> None:
    wrong = 0
    with traced():
        for number, rng in inputs("frames", 12_000):
            stream, limit = make_stream(rng), rng.choice((4, 64, 1000, 1 << 20))
            if rng.random() < 0.3:
                stream = damage(stream, rng, CORPUS)
            reader, pieces = FrameReader(limit), chunks(stream, rng)
            (got, failed), peak = peak_of(lambda r=reader, p=pieces: read(r, p))  # type: ignore[misc]
            expected, broken = cut_up(stream, limit)
            assert failed == broken, number
            assert got == (expected[: len(got)] if broken else expected), number
            # What arrived, its copy in payloads, and room for growth; not what a header claims.
            assert peak < OVERHEAD + 4 * len(stream), number
            if broken:
                wrong += 1
                with pytest.raises(FrameError):
                    reader.has_frame()
    print(f"frames: {wrong} with a wrong header")
    assert wrong > 100


def test_models_and_notes() -> None:
    """What rides inside of messages: NaN and infinity are no model, and any note is a note."""
    size = 5
    good = [
        RoundModel(np.arange(size, dtype=np.float32), PublicRange(0.5)).to_bytes(),
        Timings(1.0, 2.0).to_bytes(),
        np.full(size + 2, np.nan, "<f4").tobytes(),
        np.full(size + 2, np.inf, "<f4").tobytes(),
    ]
    for number, rng in inputs("models and notes", 4_000):
        data = damage(rng.choice(good), rng, good)
        note = Timings.from_bytes(data)
        assert 0 <= note.train <= 1e6 and 0 <= note.encrypt <= 1e6, number
        try:
            model = RoundModel.from_bytes(data, size)
        except EncodingError:
            continue
        assert np.isfinite(model.weights).all() and 0 < model.public.clip_range < float("inf"), (
            number
        )
