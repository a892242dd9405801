"""`--aggregation plain`: the same rounds and transport, with updates in clear, for comparison."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.configs import CodecConfig
from fl.privacy.privacy import Privacy
from fl.schemes.plain_codec import PlainCodec
from fl.schemes.scheme import ClientSeat, Judge, Notices, Setting
from mphe import (
    SERVER,
    Abandoned,
    Closed,
    EncodingError,
    Finished,
    Hedge,
    Identity,
    MalformedMessage,
    RandomSource,
    Rejected,
    SessionReady,
    Step,
    Summed,
    UnexpectedSender,
)
from mphe.run import (
    Attendance,
    Collecting,
    Contribution,
    Contributor,
    Finish,
    Join,
    Outdated,
    Output,
    Payload,
    Rejection,
    RoundEnd,
    RoundStart,
    Send,
    ServerParty,
    Vault,
    decode,
    longest_of_client,
    longest_of_server,
)
from mphe.update import Codec


class PlainEncryptor:
    """Stands where `mphe.Client` encrypts, and hides nothing."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return an update, float32 (size,), in clear."""
        return Payload(b"", b"", values.astype("<f4").tobytes())


class PlainServer:
    """Drop-in for `mphe.Server` that adds what it can read."""

    state = b""

    def __init__(
        self,
        size: int,
        num_clients: int,
        minimum: int,
        *,
        joined: bool = False,
        judge: Judge | None = None,
    ) -> None:
        """Expect clients 1..num_clients, and of at least `minimum` a round `size` values each.

        With `joined` they have joined a process before this one; `judge` as in `mphe.Server`.
        """
        self.members = set(range(1, num_clients + 1))
        self._collects = False
        self._joining = set() if joined else set(self.members)
        self._size = size
        self._minimum = minimum
        self._judge = judge
        self._attendance = Attendance()
        self._now = Collecting(0)
        self._total = np.zeros(size)

    @property
    def round(self) -> int:
        """Number of the round that is under way, or was last."""
        return self._now.number

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        return ("joining",) if self._joining else (self._collects, self.round)

    @property
    def keeps_sum(self) -> bool:
        """Return False: there is nothing to decrypt."""
        return False

    def abandon_round(self, reason: str) -> Step:
        """Do nothing: what was stored is never in mid-round."""
        return Step()

    def resume_at(self, round: int) -> None:
        """Go on after this round, whose number is not used again."""
        self._now = Collecting(round)

    def start_round(self, model: bytes, present: Iterable[int]) -> Step:
        """Send the model to the clients that are present and expect their updates."""
        self._now = Collecting(self.round + 1)
        self._collects = True
        self._attendance.begin(present, self._minimum)
        self._total = np.zeros(self._size)
        start = RoundStart(self.round, model)
        outputs: list[Output] = [Send(index, start) for index in self._there()]
        return Step.of(outputs if self._attendance.expected else outputs + self._close())

    def receive(self, sender: int, data: bytes) -> Step:
        """Take a join or an update; RemoteProtocolError when it is wrong."""
        message = decode(data, sender)
        if isinstance(message, Join):
            return Step.of(self._joined(sender))
        if not isinstance(message, Contribution):
            raise UnexpectedSender(sender, f"{type(message).__name__} is not expected now")
        return Step.of(self._on_contribution(sender, message))

    def _on_contribution(self, sender: int, message: Contribution) -> list[Output]:
        if message.transcript or message.segment:
            raise MalformedMessage(sender, "its update is of an encrypted session, or in segments")
        add = self._add if self._collects else None
        taken = self._now.take(sender, message, self._attendance, add)
        goes_on = isinstance(taken, Outdated) or self._attendance.expected
        return [taken] if goes_on else [taken, *self._close()]

    def _add(self, sender: int, message: Contribution) -> None:
        if len(message.body) != 4 * self._size:
            raise MalformedMessage(sender, "its update has the wrong length")
        update = np.frombuffer(message.body, "<f4")
        if not np.isfinite(update).all():
            raise MalformedMessage(sender, "its update holds numbers that are not finite")
        self._total += update

    def lost(self, *peers: int) -> Step:
        """Go on without some clients."""
        ready = self._joined(*peers)
        self._attendance.lost(peers)
        ends = self._collects and not self._attendance.expected
        return Step.of([*ready, *self._close()] if ends else ready)

    def deadline_passed(self) -> Step:
        """Start with whoever has joined, or end the round with the updates that are there."""
        if not self._collects:
            return Step.of(self._joined(*self._joining))
        self._attendance.deadline()
        return Step.of(self._close())

    def _joined(self, *peers: int) -> list[Output]:
        """Wait for these no longer; rounds may begin once nobody is waited for."""
        waited = bool(self._joining)
        self._joining.difference_update(peers)
        return [SessionReady((), (), (), ())] if waited and not self._joining else []

    def _close(self) -> list[Output]:
        self._collects = False
        contributors = self._now.announced()
        if reason := self._unfit(len(contributors)):
            abandoned = Abandoned(
                round=self.round,
                reason=reason,
                begun=False,
                contributors=contributors,
                missing=tuple(sorted(self.members - set(contributors))),
                attempts=0,
            )
            return [abandoned, *self._end(())]
        summed = Summed(self.round, contributors, self._total, 0)
        return [Closed(self.round, contributors), summed, *self._end(contributors)]

    def _unfit(self, count: int) -> str:
        """Return why the sum of so many updates is not used, or ""."""
        if count < self._minimum:
            return f"{count} updates arrived, at least {self._minimum} are needed"
        return self._judge(self._total, count) if self._judge else ""

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose join or update is still missing."""
        return tuple(sorted(self._joining or (self._attendance.expected if self._collects else ())))

    def finish(self, peers: Iterable[int], reason: str) -> Step:
        """Tell clients that the session is over, and why."""
        return Step.of(Send(peer, Finish(reason)) for peer in sorted(peers))

    def _end(self, contributors: tuple[int, ...]) -> list[Output]:
        end = RoundEnd(self.round, contributors)
        return [Send(index, end) for index in self._there()]

    def _there(self) -> list[int]:
        return sorted(self._attendance.present)


class PlainClient:
    """Drop-in for `mphe.Client` whose updates travel in clear."""

    def __init__(self, index: int) -> None:
        """Be client `index`, from 1."""
        self._index = index
        self._contributor = Contributor(index, PlainEncryptor(), transcript=b"")

    is_open = True
    state = b""

    @property
    def round(self) -> int:
        """The newest round that this client was told of."""
        return self._contributor.round

    def start(self) -> Step:
        """Join without keys."""
        return Step.of([Send(SERVER, Join(self._index, b"", b"", b""))])

    def reconnected(self) -> Step:
        """Join again over a new connection."""
        return self.start()

    def receive(self, data: bytes) -> Step:
        """Take one message of the server; RemoteProtocolError when it is wrong."""
        message = decode(data, SERVER)
        if isinstance(message, Finish):
            return Step.of([Finished(message.reason)])
        if isinstance(message, Rejection):
            return Step.of([Rejected(message.reason)])
        # The end of a round that began before this client was back is no news to it.
        if isinstance(message, RoundEnd) and not self._contributor.round:
            return Step()
        return Step.of(self._contributor.receive(SERVER, message))

    def encrypt(self, values: NDArray[Any]) -> Payload:
        """Return an update as it is sent."""
        return self._contributor.encrypt(values)

    def contribute(self, round: int, update: NDArray[Any] | Payload, metrics: bytes = b"") -> Step:
        """Send an update."""
        payload = update if isinstance(update, Payload) else self.encrypt(update)
        return Step.of(self._contributor.contribute(round, payload, metrics))


class PlainAgreement:
    """Parties that hide nothing; the limits of a session hold for them too."""

    plan = None

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.digest = setting.plan.digest
        self.longest_of_server = longest_of_server(setting.plan, setting.model_bytes)

    def longest_of_client(self, is_open: bool) -> int:
        """Return the bytes of the longest message that a client may send: an update in clear."""
        return longest_of_client(self.setting.plan, is_open) + 4 * self.setting.length

    def server(self, *, joined: bool = False) -> ServerParty:
        """Return a server that nobody has joined, or everybody."""
        session = self.setting.session
        clients, minimum = session.num_clients, session.min_contributors
        length, judge = self.setting.length, self.setting.judge
        return PlainServer(length, clients, minimum, joined=joined, judge=judge)

    def restored_server(self, state: bytes) -> ServerParty:
        """Return a server that was joined before; EncodingError when another was stored."""
        if state:
            raise EncodingError("it was written with another --aggregation")
        return self.server(joined=True)

    def client(self, index: int, identity: Identity, vault: Vault | None) -> ClientSeat:
        """Return a client; there is nothing to store."""
        return ClientSeat(PlainClient(index))

    def notices(self, ready: SessionReady) -> Notices:
        """Say nothing: there is no key."""
        return Notices()


class PlainScheme:
    """Sums of float32 that the server adds up itself."""

    def codec(
        self,
        config: CodecConfig,
        size: int,
        privacy: Privacy | None = None,
        hedge: Hedge | None = None,
    ) -> Codec:
        """Return the codec of updates of `size` values as they are; flags rule privacy out."""
        rate, weighted = config.compression_rate, config.weighted
        return PlainCodec(size, config.clip_norm, compression_rate=rate, weighted=weighted)

    def agree(self, setting: Setting) -> PlainAgreement:
        """Return a run's parties."""
        return PlainAgreement(setting)
