"""The server as bytes in, bytes out: all of its roles, wired once.

    step = server.receive(sender, data)             # until the event SessionReady
    step = server.start_round(b"model", present)    # and then round after round

It relays, adds and counts, and learns the sums. `lost`, `deadline_passed` and `waiting_for` are
for whoever knows the network and the clock.

A server can be made anew from `state` for every single message, in the middle of the set-up or of a
round. All that it draws at random is a seed of the salts of groups, as the key is made: made twice
from one state, it says the same to the same message.
Whoever runs it acts on a step's events and stores the state before it sends the step's mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from mphe.arithmetic.sampling import RandomSource
from mphe.errors import EncodingError, LocalProtocolError, ParameterError
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.roles import blob, keyfile, records
from mphe.roles.identity import check_roster
from mphe.roles.machine import Event, Output, Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.judging import Judge, satisfied
from mphe.roles.setup.common import PublicSession
from mphe.roles.setup.server import SetupDone, SetupServer, SetupState
from mphe.roles.step import Mail, Step
from mphe.scheme.packing import BlockMap
from mphe.wire import codec
from mphe.wire.messages import Finish


@dataclass(frozen=True)
class SessionReady(Event):
    """The collective key exists and is confirmed; rounds may begin.

    Attributes:
        qualified: clients whose secrets make up the key.
        decryptors: clients whose shares of it are confirmed.
        missing: clients that are not there any more.
        unconfirmed: clients whose shares did not open or did not fit; they only contribute.
    """

    qualified: tuple[int, ...]
    decryptors: tuple[int, ...]
    missing: tuple[int, ...]
    unconfirmed: tuple[int, ...]


class Server:
    """Makes the collective key with the clients, then runs one round after the other.

    Attributes:
        plan: what follows from the session's parameters.
        roster: public keys of all clients.
        setup: the role that makes the key.
        aggregator: the role that runs the rounds, as soon as there is a key.
    """

    SETUP: ClassVar[type[SetupServer]] = SetupServer

    def __init__(
        self,
        parameters: SessionParameters,
        roster: Mapping[int, bytes],
        *,
        blocks: BlockMap = map,
        source: RandomSource | None = None,
        judge: Judge | None = None,
    ) -> None:
        """Wait for all clients.

        Args:
            parameters: the same for all parties.
            roster: public keys of all clients.
            blocks: computes the blocks of a sum, `map` or that of a thread pool.
            source: of what nobody must foresee of groups; by default the operating system.
            judge: says in one line what is implausible in a total (length,) of so many
                contributors, or "": such a sum is treated like one that is out of range.

        Raises:
            ParameterError: the parameters cannot be served safely, or do not fit the roster.
        """
        self.plan: Plan = make_plan(parameters)
        self.roster = check_roster(roster, parameters.num_clients)
        self._blocks = blocks
        self._source = source or RandomSource.from_system()
        self._judge = judge or satisfied
        self._serial = 0
        self._outbox: Mail = []
        self.setup = self.SETUP(self.plan, self.roster)
        self.aggregator: Aggregator | None = None

    @classmethod
    def restore(
        cls,
        state: bytes,
        *,
        blocks: BlockMap = map,
        source: RandomSource | None = None,
        judge: Judge | None = None,
    ) -> Self:
        """Return the server that `state` was taken from; what is not kept is given again.

        Raises:
            EncodingError: this is no state of a server of this version.
        """
        serial, record = blob.read(state, blob.Kind.SERVER, records.ServerRecord)
        parameters = records.read_parameters(record.parameters)
        roster = records.read_roster(record.roster, parameters.num_clients)
        try:
            server = cls(parameters, roster, blocks=blocks, source=source, judge=judge)
        except ParameterError as error:
            raise EncodingError(f"the state is of another server: {error}") from error
        server._resume(serial, record)
        return server

    def _resume(self, serial: int, record: records.ServerRecord) -> None:
        """Take over what was kept."""
        self._serial = serial
        self._outbox = records.read_outbox(record.outbox)
        self.setup.resume(record.setup)
        is_open = self.setup.state is SetupState.OPEN
        if len(record.rounds) != is_open or bool(record.session) != is_open:
            raise EncodingError("a session belongs to a set-up that is done, and to no other")
        for rounds in record.rounds:
            session = keyfile.read_session(record.session, self.plan, self.roster)
            self.aggregator = self._run_rounds(session)
            self.aggregator.resume(rounds)

    @property
    def state(self) -> bytes:
        """Everything that this server is, at any moment; secret only if groups are drawn.

        Who knows the salts beforehand can choose beside whom to cheat.
        A set-up that failed has a state too: of a server that takes no message any more. Events
        are not in it. Store it before the mail of a step is sent, over the state that the step
        began with: `mphe.serial_of` tells one from the other.
        """
        aggregator = self.aggregator
        record = records.ServerRecord(
            parameters=records.write_parameters(self.plan.session),
            roster=records.write_roster(self.roster),
            setup=self.setup.record(),
            session=b"" if aggregator is None else keyfile.write_session(aggregator.session),
            rounds=() if aggregator is None else (aggregator.record(),),
            outbox=records.write_outbox(self._outbox),
        )
        return blob.write(blob.Kind.SERVER, self._serial, record)

    @property
    def outbox(self) -> Mail:
        """The mail of the last step; after `restore` it may not have been sent."""
        return list(self._outbox)

    def resume_at(self, round: int) -> None:
        """Go on after this round: numbers up to it were used, by a process before this one.

        Raises:
            LocalProtocolError: there is no key yet, or a later round has begun.
        """
        if self.aggregator is None:
            raise LocalProtocolError("there is no key yet, so there was no round")
        self.aggregator.resume_at(round)
        self._serial += 1

    def abandon_round(self, reason: str) -> Step:
        """Give up the round under way, if there is one, and say why in one line."""
        return self._stepped([] if self.aggregator is None else self.aggregator.abandon(reason))

    def finish(self, peers: Iterable[int], reason: str) -> Step:
        """Tell clients that the session is over, and why."""
        farewell = Finish(reason)
        return Step.of(Send(peer, farewell) for peer in sorted(peers))

    @property
    def session(self) -> PublicSession | None:
        """What the set-up made, once it is done; nothing of it is secret."""
        return None if self.aggregator is None else self.aggregator.session

    @property
    def members(self) -> set[int]:
        """The clients that may contribute."""
        return set() if self.aggregator is None else set(self.aggregator.members)

    @property
    def excluded(self) -> set[int]:
        """The clients that were found out; they take no further part."""
        return set() if self.aggregator is None else self.aggregator.excluded

    @property
    def round(self) -> int:
        """The last round that was started; 0 before the first."""
        return 0 if self.aggregator is None else self.aggregator.round

    @property
    def keeps_sum(self) -> bool:
        """Whether the decryption of a round has begun and its sum may still be had.

        A server that is restored in it goes on: call `lost` with all clients, whose connections
        are gone, and play on. No other round begins before.
        """
        return self.aggregator is not None and self.aggregator.keeps_sum

    @property
    def step(self) -> tuple[object, ...]:
        """What is waited for; it changes whenever a new wait begins, its first part is the kind."""
        return self._role.step

    @property
    def _role(self) -> SetupServer | Aggregator:
        return self.aggregator or self.setup

    def receive(self, sender: int, data: bytes) -> Step:
        """Take one message of a client.

        Raises:
            RemoteProtocolError: the message is wrong, or wrong now; nothing has changed.
        """
        return self._stepped(self._role.receive(sender, codec.decode(data, sender)))

    def start_round(self, model: bytes, present: Iterable[int]) -> Step:
        """Send the model to clients and expect their updates.

        Args:
            model: opaque bytes.
            present: the clients that can be reached now.

        Raises:
            LocalProtocolError: there is no key yet, a round is under way or its sum is kept, or
                none is left.
        """
        if self.aggregator is None:
            raise LocalProtocolError("there is no key yet: a round needs the event SessionReady")
        return self._stepped(self.aggregator.start_round(model, present))

    def lost(self, *peers: int) -> Step:
        """Go on without clients that vanished or misbehaved, all at once."""
        return self._stepped(self._role.lost(*peers))

    def deadline_passed(self) -> Step:
        """Go on without those that have not answered."""
        return self._stepped(self._role.deadline_passed())

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is still missing; nobody's between two rounds."""
        return self._role.waiting_for()

    def _run_rounds(self, session: PublicSession) -> Aggregator:
        return Aggregator(session, self._blocks, self._source, self._judge)

    def _stepped(self, outputs: list[Output]) -> Step:
        events: list[Output] = []
        for output in outputs:
            if isinstance(output, SetupDone):
                self.aggregator = self._run_rounds(output.session)
                events.append(_ready(output))
            else:
                events.append(output)
        step = Step.of(events)
        self._serial += 1
        self._outbox = step.mail
        return step


def _ready(done: SetupDone) -> SessionReady:
    session = done.session
    return SessionReady(session.qualified, session.decryptors, done.missing, done.unconfirmed)
