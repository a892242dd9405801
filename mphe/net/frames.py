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
    """Cuts a stream of bytes into frames.

    Holds the bytes that arrived and not one more, whatever length a header claims.
    """

    def __init__(self, max_length: int) -> None:
        """Accept payloads of 1 to `max_length` bytes."""
        self._max_length = max_length
        self._buffer = bytearray()

    def set_max_length(self, max_length: int) -> None:
        """Change the limit for the frames after those already returned."""
        self._max_length = max_length

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """Add what arrived and return the payloads that are now complete.

        Raises FrameError as soon as a header is empty or above the limit.
        """
        self._buffer += data
        payloads = []
        while (payload := self._next_payload()) is not None:
            payloads.append(payload)
        return payloads

    def _next_payload(self) -> bytes | None:
        if len(self._buffer) < HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[:HEADER_SIZE], "big")
        if length == 0:
            raise FrameError("empty frame")
        if length > self._max_length:
            raise FrameError(f"frame of {length} bytes where at most {self._max_length} may come")
        end = HEADER_SIZE + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:  # one copy, not two
            payload = bytes(view[HEADER_SIZE:end])
        del self._buffer[:end]
        return payload
