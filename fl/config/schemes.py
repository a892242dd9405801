"""The schemes that --aggregation chooses from, and what the other flags must know of them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SchemeEntry:
    """A scheme before it is loaded, since NumPy comes with it.

    Attributes:
        where: MODULE:NAME of the `fl.schemes.scheme.Scheme`.
        hides: whether the server sees sums only.
        encrypts: whether decryptors open what is summed, so that --encryption, --resiliency and
            --verify_aggregate say how.
    """

    where: str
    hides: bool
    encrypts: bool


SCHEMES: Mapping[str, SchemeEntry] = {
    "mphe": SchemeEntry("fl.schemes.mphe:MpheScheme", hides=True, encrypts=True),
    "plain": SchemeEntry("fl.schemes.plain:PlainScheme", hides=False, encrypts=False),
}


def describe_sums(aggregation: str, encryption: str) -> str:
    """Say how updates are summed up: plain, mphe hybrid, mphe direct."""
    entry = SCHEMES.get(aggregation)
    encrypts = entry is None or entry.encrypts  # of another version: say all that is known
    return f"{aggregation} {encryption}".strip() if encrypts else aggregation
