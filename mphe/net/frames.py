"""Length-prefixed frames without I/O: a 4-byte big-endian length, then the payload."""

HEADER_SIZE = 4


class FrameError(Exception):
    """A frame is empty or longer than allowed; the stream cannot be read any further."""


def encode_header(length: int) -> bytes:
    """Return the header of a payload of `length` bytes.

    Raises FrameError for an empty payload and for one of 4 GiB and more.
    """
    if not 0 < length < 1 << 32:
        raise FrameError(f"a frame carries 1 byte to 4 GiB, not {length} bytes; split the payload")
    return length.to_bytes(HEADER_SIZE, "big")


class FrameReader:
    """Cuts a stream of bytes into frames, each when it is asked for.

    Holds the bytes that arrived and not one more, whatever length a header claims.
    """

    def __init__(self, max_length: int) -> None:
        """Accept payloads of 1 to `max_length` bytes."""
        self._max_length = max_length
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """Bytes that arrived and are not taken yet."""
        return len(self._buffer)

    def set_max_length(self, max_length: int) -> None:
        """Change the limit for the frames that are not taken yet."""
        self._max_length = max_length

    def feed(self, data: bytes | bytearray) -> None:
        """Add what arrived."""
        self._buffer += data

    def has_frame(self) -> bool:
        """Return whether a whole frame is there.

        Raises FrameError as soon as the header in front is empty or above the limit.
        """
        length = self._length()
        return length is not None and len(self._buffer) >= HEADER_SIZE + length

    def take(self) -> bytes | None:
        """Return the payload in front, None until all of it is there; see has_frame."""
        length = self._length()
        if length is None or len(self._buffer) < (end := HEADER_SIZE + length):
            return None
        with memoryview(self._buffer) as view:  # one copy, not two
            payload = bytes(view[HEADER_SIZE:end])
        del self._buffer[:end]
        return payload

    def _length(self) -> int | None:
        """Return the length that the header in front claims, None until it is there."""
        if len(self._buffer) < HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[:HEADER_SIZE], "big")
        if length == 0:
            raise FrameError("empty frame")
        if length > self._max_length:
            raise FrameError(f"frame of {length} bytes where at most {self._max_length} may come")
        return length
