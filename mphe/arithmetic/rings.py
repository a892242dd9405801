"""The three rings, and the table that says which are secure (docs/protocol.md, Ring)."""

from __future__ import annotations

from dataclasses import dataclass

from mphe.errors import ParameterError

LIMB_BITS = 32

MAX_LOG_Q = {4096: 106, 8192: 214, 16384: 430}
"""log2 q allowed at 128 bits with a ternary secret (Bossuat et al. 2024/463, table 5.2)."""


@dataclass(frozen=True)
class RingParameters:
    """One ring Z_q[X]/(X^N + 1).

    Attributes:
        name: what messages to the user call it.
        degree: N, a power of two.
        limbs: L.
        subtrahend: c in q = 2^(32·L) - c, q prime.
    """

    name: str
    degree: int
    limbs: int
    subtrahend: int

    @property
    def modulus(self) -> int:
        """The prime q."""
        return (1 << (LIMB_BITS * self.limbs)) - self.subtrahend

    @property
    def bits(self) -> int:
        """log2 q, rounded up."""
        return LIMB_BITS * self.limbs

    def check_secure(self) -> None:
        """Raise ParameterError unless the security table allows this modulus in this degree."""
        allowed = MAX_LOG_Q.get(self.degree, 0)
        if self.bits > allowed:
            raise ParameterError(
                f"ring {self.name}: log2 q = {self.bits} in degree {self.degree} is below 128-bit "
                f"security (at most {allowed}); use one of the rings of this module"
            )


KEY_RING = RingParameters("key", 4096, 3, 17)
DATA_RING = RingParameters("data", 8192, 6, 237)
LARGE_RING = RingParameters("large", 16384, 13, 435)
RINGS = (KEY_RING, DATA_RING, LARGE_RING)
