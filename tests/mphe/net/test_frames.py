"""mphe.net.frames: cutting a stream into frames, whatever the chunks."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mphe.net.frames import HEADER_SIZE, FrameError, FrameReader, encode_header


def frame(payload: bytes) -> bytes:
    return encode_header(len(payload)) + payload


def cut(reader: FrameReader, data: bytes | bytearray) -> list[bytes]:
    """Feed a reader and take what is whole."""
    reader.feed(data)
    return list(iter(reader.take, None))


def test_header_is_four_bytes_big_endian() -> None:
    assert encode_header(0x01020304) == b"\x01\x02\x03\x04"


@pytest.mark.parametrize("length", [0, -1, 1 << 32])
def test_no_header_for_what_no_frame_can_carry(length: int) -> None:
    with pytest.raises(FrameError):
        encode_header(length)


def test_whole_frame() -> None:
    assert cut(FrameReader(10), frame(b"hello")) == [b"hello"]


def test_byte_by_byte() -> None:
    reader = FrameReader(10)
    stream = frame(b"hello") + frame(b"you")
    got = [payload for byte in stream for payload in cut(reader, bytes([byte]))]
    assert got == [b"hello", b"you"]


def test_several_frames_in_one_chunk_and_trailing_bytes() -> None:
    reader = FrameReader(10)
    last = frame(b"three")
    assert cut(reader, frame(b"one") + frame(b"two") + last[:6]) == [b"one", b"two"]
    assert cut(reader, last[6:]) == [b"three"]


def test_payloads_are_immutable_copies() -> None:
    reader = FrameReader(10)
    (payload,) = cut(reader, bytearray(frame(b"hello")))
    cut(reader, frame(b"other"))
    assert type(payload) is bytes
    assert payload == b"hello"


def test_longest_frame_passes_and_one_more_byte_does_not() -> None:
    assert cut(FrameReader(5), frame(b"hello")) == [b"hello"]
    with pytest.raises(FrameError, match="6 bytes where at most 5"):
        cut(FrameReader(5), encode_header(6))  # refused on its header alone


def test_empty_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="empty"):
        cut(FrameReader(5), bytes(HEADER_SIZE))


def test_limit_can_be_raised_between_frames() -> None:
    reader = FrameReader(4)
    assert cut(reader, frame(b"abcd")) == [b"abcd"]
    reader.set_max_length(5)
    assert cut(reader, frame(b"hello")) == [b"hello"]


def test_a_claimed_length_takes_no_memory() -> None:
    reader = FrameReader(400 << 20)
    tracemalloc.start()
    try:
        assert cut(reader, encode_header(400 << 20) + b"x") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_frames_wait_as_bytes_until_they_are_taken() -> None:
    reader = FrameReader(10)
    reader.feed(frame(b"one") + frame(b"two") + frame(b"three")[:5])
    assert reader.has_frame() and reader.held == 7 + 7 + 5
    assert (reader.take(), reader.held) == (b"one", 12)
    assert (reader.take(), reader.held) == (b"two", 5)
    assert not reader.has_frame() and reader.take() is None


@given(st.lists(st.binary(min_size=1, max_size=300)), st.data())
def test_any_chunking_gives_the_frames_back(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    reader = FrameReader(300)
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += cut(reader, stream[start:end])
    assert got == payloads
