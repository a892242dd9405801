"""What follows from wrong sums: who is found out, who sits out, when groups are drawn anew.

docs/protocol.md, Culprits. Evidence decides who is named; everything else here decides only which
sums are tried next, so that a culprit gets into evidence that the others are not in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass

from mphe.arithmetic.sampling import SEED_BYTES, RandomSource, derive_seed
from mphe.errors import EncodingError
from mphe.plan.agreement import SessionParameters
from mphe.roles import kept
from mphe.roles.rounds.culprits import Suspicions, SuspicionsRecord
from mphe.roles.rounds.outcomes import Excluded
from mphe.scheme.partition import MAX_DRAWS
from mphe.wire.messages import UNDIVIDED, Draw

PATIENCE = 8
"""Rounds after the last wrong sum in which suspects sit out, or decrypt, in turn."""


@dataclass(frozen=True)
class BlameRecord:
    """`Blame` between two messages.

    Attributes:
        seed: of the salts; nobody must know them before the server shows them.
        draw: number of the draw, 0 where groups are never drawn.
        suspicions: all evidence.
        excluded: who was found out.
        unexplained: the last round with a wrong sum that nobody's exclusion explains.
        spoiled: the last round in which other decryptors got a sum right.
        sat_out: the last round that each client sat out.
    """

    seed: bytes
    draw: int
    suspicions: SuspicionsRecord
    excluded: tuple[Excluded, ...]
    unexplained: int
    spoiled: int
    sat_out: tuple[kept.Count, ...]


class Blame:
    """The evidence of a session, and what is done about it."""

    def __init__(self, session: SessionParameters, source: RandomSource) -> None:
        """Begin without evidence; `source` gives the salts, where groups are drawn."""
        self._session = session
        self._grouped = session.max_groups > 1
        self._seed = source.bytes(SEED_BYTES) if self._grouped else b""
        self._draw = int(self._grouped)
        self._suspicions = Suspicions(session.culprits)
        self._unexplained = self._spoiled = 0
        self._sat_out: Counter[int] = Counter()
        self.excluded: dict[int, str] = {}

    def record(self) -> BlameRecord:
        """Return what is to be kept."""
        return BlameRecord(
            self._seed,
            self._draw,
            self._suspicions.record(),
            tuple(Excluded(client, self.excluded[client]) for client in sorted(self.excluded)),
            self._unexplained,
            self._spoiled,
            kept.write_counts(self._sat_out),
        )

    def resume(self, record: BlameRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        clients = self._session.num_clients
        drawn = range(1, MAX_DRAWS + 1) if self._grouped else range(1)
        if len(record.seed) != len(self._seed) or record.draw not in drawn:
            raise EncodingError("the draw of groups makes no sense")
        kept.read_indices([item.client for item in record.excluded], clients)
        self._seed, self._draw = record.seed, record.draw
        self._suspicions.resume(record.suspicions)
        self.excluded = {item.client: item.reason for item in record.excluded}
        self._unexplained, self._spoiled = record.unexplained, record.spoiled
        self._sat_out = kept.read_counts(record.sat_out)

    @property
    def draw(self) -> Draw:
        """The draw of the next round, with its salt."""
        if not self._grouped:
            return UNDIVIDED
        salt = derive_seed("draw", self._seed, self._draw.to_bytes(4, "big"))
        return Draw(self._draw, self._session.max_groups, salt)

    @property
    def overdrawn(self) -> bool:
        """Whether more cheat than naming reckons with, so that nobody is named."""
        return self._suspicions.overdrawn

    # -- evidence ------------------------------------------------------------------------------

    def settle(
        self, round: int, lost: Iterable[Collection[int]], spoiled: Iterable[Collection[int]]
    ) -> list[int]:
        """Take the evidence of a round that is over; return who is named by it.

        Args:
            round: its number.
            lost: for each sum that was never right, whose doing it may be.
            spoiled: the same for each that was right under other decryptors.
        """
        lost, spoiled = list(lost), list(spoiled)
        if not lost and not spoiled:
            return []
        for piece in (*lost, *spoiled):
            self._suspicions.add(piece)
        known = set(self.excluded)
        named = sorted(self._suspicions.named() - known)
        if spoiled:
            self._spoiled = round
        if any(not (known | set(named)) & set(piece) for piece in (*lost, *spoiled)):
            self._unexplained = round
            if self._grouped and not self.overdrawn:
                self._draw = min(self._draw + 1, MAX_DRAWS)
        return named

    def reason(self) -> str:
        """Return why somebody is named, in one line."""
        most = self._session.culprits
        others = "no other client explains" if most == 1 else f"no {most} other clients explain"
        return f"it cheated: {others} every sum that was wrong"

    def _suspects(self) -> list[int]:
        """Return who is in most of the evidence that is not explained yet."""
        pieces = [
            piece
            for piece in self._suspicions.record().evidence
            if not set(piece) & set(self.excluded)
        ]
        counts = Counter(client for piece in pieces for client in piece)
        most = max(counts.values(), default=0)
        return sorted(client for client in counts if counts[client] == most)

    # -- what is tried next --------------------------------------------------------------------

    def sit_out(self, round: int, contributors: Set[int]) -> set[int]:
        """Return who of these does not contribute, so that the next wrong sum tells more.

        At most half of the suspects, those first that sat out longest ago; `min_contributors` are
        left.
        """
        spare = len(contributors) - self._session.min_contributors
        suspects = [client for client in self._suspects() if client in contributors]
        if spare < 1 or not suspects or not self._goes_on(self._unexplained, round):
            return set()
        suspects.sort(key=lambda client: (self._sat_out[client], client))
        sitting = suspects[: min(spare, max(1, len(suspects) // 2))]
        self._sat_out.update({client: round - self._sat_out[client] for client in sitting})
        return set(sitting)

    def tried(self, round: int) -> dict[int, int]:
        """Return which decryptors are asked first (-1) and last (1): half of the suspects each."""
        if not self._goes_on(self._spoiled, round):
            return {}
        suspects = self._suspects()
        half = -(-len(suspects) // 2)
        turned = suspects[round % len(suspects) :] + suspects[: round % len(suspects)]
        return {client: -1 if place < half else 1 for place, client in enumerate(turned)}

    def _goes_on(self, last: int, round: int) -> bool:
        return (
            last > 0 and round - last <= PATIENCE and not self.overdrawn and bool(self._suspects())
        )


def beyond_decryptors(active: Iterable[Collection[int]], most: int) -> bool:
    """Return whether so many cheating decryptors cannot have spoiled all of these attempts."""
    suspicions = Suspicions(most)
    for members in active:
        suspicions.add(members)
    return suspicions.overdrawn
