"""A client as bytes in, bytes out: all of its roles, wired once.

    step = client.start()
    step = client.receive(data)                 # of the server
    step = client.contribute(round, integers)   # after the event TrainOn

A client can be made anew from `state` for every single message. Whoever runs it stores the state
before it sends a step's mail, so that what was said is never forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from mphe.arithmetic.hedge import Hedge
from mphe.arithmetic.sampling import SEED_BYTES, derive_seed
from mphe.arithmetic.system import System
from mphe.errors import (
    EncodingError,
    LocalProtocolError,
    ParameterError,
    RefusedDecryption,
    printable,
)
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from mphe.roles import blob, keyfile, records
from mphe.roles.identity import Identity, check_roster
from mphe.roles.machine import Event, Output, Send
from mphe.roles.rounds.contributor import Contributor, ContributorState, Progress, TrainOn
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup import returning
from mphe.roles.setup.client import Keyed, KeysReady, Opened, SetupClient, Stage
from mphe.roles.setup.common import SessionKeys
from mphe.roles.step import Mail, Step
from mphe.roles.verified.evidence import Prover
from mphe.roles.verified.pledges import PledgedEncryptor
from mphe.roles.verified.proving import ProvingEncryptor
from mphe.scheme.encryptor import Encryptor, Payload
from mphe.scheme.packing import BlockMap
from mphe.wire import codec
from mphe.wire.messages import (
    SERVER,
    DecryptionRequest,
    Finish,
    Message,
    Refusal,
    Rejection,
    RoundEnd,
    RoundStart,
    SessionOpen,
)

Journal = Callable[[bytes], None]


@dataclass(frozen=True)
class Finished(Event):
    """The server ended the session, and says why."""

    reason: str


@dataclass(frozen=True)
class Rejected(Event):
    """The server takes no part of this client, and says why."""

    reason: str


@dataclass(frozen=True)
class _Kept:
    """What a client remembers beside its keys.

    Attributes:
        serial: counts the changes.
        contribution: to the round under way, as it was sent.
        received: digest of the last message.
        outbox: mail of the last step.
    """

    serial: int = 0
    contribution: bytes = b""
    received: bytes = b""
    outbox: Mail = field(default_factory=list)


class Client:
    """Takes part in the key set-up, contributes to rounds and helps to decrypt their sums.

    Attributes:
        index: of this client, from 1.
        plan: what follows from the session's parameters.
        roster: public keys of all clients.
        setup, contributor, decryptor: its roles, the last two as soon as there are keys for them.
    """

    SETUP: ClassVar[type[SetupClient]] = SetupClient
    DECRYPTOR: ClassVar[type[Decryptor]] = Decryptor

    def __init__(
        self,
        index: int,
        parameters: SessionParameters,
        identity: Identity,
        roster: Mapping[int, bytes],
        *,
        system: System | None = None,
        blocks: BlockMap = map,
        journal: Journal | None = None,
    ) -> None:
        """Wait for `start`.

        Args:
            index: of this client, from 1.
            parameters: the same for all parties.
            identity: signs what this client says.
            roster: public keys of all clients, from somewhere that the server cannot change.
            system: of all randomness; by default the operating system.
            blocks: computes the blocks of an update, `map` or that of a thread pool.
            journal: stores a state for good before a sum is helped to be decrypted, or raises
                OSError: the request is then refused. For who does not store every step's state.

        Raises:
            ParameterError: the parameters cannot be served safely, or do not fit the roster.
        """
        self.index = index
        self.plan = make_plan(parameters)
        self.roster = check_roster(roster, parameters.num_clients)
        if self.roster.get(index) != identity.public:
            raise ParameterError(f"the roster has another key for client {index}")
        self._identity = identity
        self._hedge = Hedge.fresh(system)
        self._blocks = blocks
        self._journal = journal
        self._kept = _Kept()
        self._returned = False
        self.decryptor: Decryptor | None = None
        self.contributor: Contributor | None = None
        self.setup = self._make_setup(None)

    @classmethod
    def restore(
        cls,
        state: bytes,
        identity: Identity,
        *,
        system: System | None = None,
        blocks: BlockMap = map,
        journal: Journal | None = None,
    ) -> Self:
        """Return the client that `state` was taken from.

        Raises:
            EncodingError: this is no state of a client of this version, or of another identity.
        """
        serial, record = blob.read(state, blob.Kind.CLIENT, records.ClientRecord)
        parameters = records.read_parameters(record.parameters)
        roster = records.read_roster(record.roster, parameters.num_clients)
        try:
            client = cls(
                record.index,
                parameters,
                identity,
                roster,
                system=system,
                blocks=blocks,
                journal=journal,
            )
        except ParameterError as error:
            raise EncodingError(f"the state is of another client: {error}") from error
        client._resume(serial, record)
        return client

    def _resume(self, serial: int, record: records.ClientRecord) -> None:
        """Take over what was kept."""
        if len(record.hedge_key) != SEED_BYTES:
            raise EncodingError("the state key has another length")
        self._hedge = Hedge(record.hedge_key, self._hedge.system)
        stage = records.read_stage(record.stage, record.content, self.plan, self.roster, self.index)
        self.setup = self._make_setup(stage)
        outbox = records.read_outbox(record.outbox)
        self._kept = _Kept(serial, record.contribution, record.received, outbox)
        self._returned = True
        if isinstance(stage, Keyed):
            if record.memory:
                memory = keyfile.read_memory(record.memory, stage.keys.transcript)
                self._hold(stage.keys, memory)
            if record.progress:
                self.contributor = self._make_contributor(stage.keys, record.progress[0])
                self._tell_draw()

    @property
    def state(self) -> bytes:
        """Everything that this client is, but its identity; secret, keep it encrypted.

        Store it before the mail of a step is sent, and only over the state that the step began
        with: `mphe.serial_of` tells one from the other.
        """
        memory = None if self.decryptor is None else self.decryptor.memory
        return self._write(self._kept.serial, memory)

    def _write(self, serial: int, memory: Memory | None) -> bytes:
        number, content = records.write_stage(self.setup.stage)
        remembered, keys = b"", self.setup.keys
        if memory is not None and keys is not None:
            remembered = keyfile.write_memory(memory, keys.transcript)
        record = records.ClientRecord(
            parameters=records.write_parameters(self.plan.session),
            roster=records.write_roster(self.roster),
            index=self.index,
            hedge_key=self._hedge.key,
            stage=number,
            content=content,
            memory=remembered,
            progress=() if self.contributor is None else (self.contributor.progress,),
            contribution=self._kept.contribution,
            received=self._kept.received,
            outbox=records.write_outbox(self._kept.outbox),
        )
        return blob.write(blob.Kind.CLIENT, serial, record)

    @property
    def outbox(self) -> Mail:
        """The mail of the last step; after `restore` it may not have been sent."""
        return list(self._kept.outbox)

    @property
    def is_open(self) -> bool:
        """Whether the key is confirmed, so that this client contributes to rounds."""
        return self.contributor is not None

    @property
    def can_decrypt(self) -> bool:
        """Whether this client holds a share of the key."""
        return self.decryptor is not None

    @property
    def round(self) -> int:
        """The newest round that this client was told of; 0 before the first."""
        return 0 if self.contributor is None else self.contributor.round

    # -- what the world says -----------------------------------------------------------------------

    def start(self) -> Step:
        """Join the session.

        Raises:
            LocalProtocolError: it has started before.
        """
        return self._stepped(self.setup.start())

    def receive(self, data: bytes) -> Step:
        """Take one message of the server; exactly the last one again gets the same mail again.

        Raises:
            RemoteProtocolError: the message is wrong, or wrong now; nothing has changed.
        """
        digest = derive_seed("received", data)
        message = codec.decode(data, SERVER)
        if digest == self._kept.received:
            return self._repeated(message)
        try:
            step = self._stepped(self._take(message))
        except RefusedDecryption as refusal:
            return self._refuse(message, refusal.reason)
        self._kept = replace(self._kept, received=digest)
        return step

    def reconnected(self) -> Step:
        """Say who is there, over a new connection or to a server that was started again.

        Raises:
            LocalProtocolError: a client without keys has lost its place with its connection.
        """
        keys = self.setup.keys
        if keys is None:
            raise LocalProtocolError("this client has no keys yet: let another one join instead")
        self._returned = True
        announcement: Output = Send(SERVER, returning.announce(keys, self._identity.private_key))
        pledge = [] if self.contributor is None else self.contributor.pledge()
        step = self._stepped([announcement, *pledge])
        # The answer may be the last message word for word, but is no repetition of it.
        self._kept = replace(self._kept, received=b"")
        return step

    def encrypt(self, integers: NDArray[Any]) -> Payload:
        """Return an update encrypted for the round under way; may run in another thread.

        Args:
            integers: (length,) in [0, 2^value_bits).

        Raises:
            EncodingError: a value is out of range, or there are too few or too many.
            LocalProtocolError: no round is under way, or it does not list this client.
        """
        if self.contributor is None:
            raise LocalProtocolError("there is no key to encrypt under yet")
        return self.contributor.encrypt(integers)

    def contribute(self, round: int, update: NDArray[Any] | Payload, metrics: bytes = b"") -> Step:
        """Send an update to a round; the bytes of before when it was sent already.

        Args:
            round: of the event TrainOn. Nothing is sent to one that is over.
            update: integers (length,) in [0, 2^value_bits), or what `encrypt` returned.
            metrics: opaque bytes that the server is told in clear.

        Raises:
            EncodingError: a value is out of range, or there are too few or too many.
        """
        contributor = self.contributor
        if contributor is None or round != contributor.round:
            return Step()
        if contributor.state is ContributorState.SENT:
            return Step([(SERVER, self._kept.contribution)] if self._kept.contribution else [])
        if contributor.state is not ContributorState.WORKING:
            return Step()
        payload = update if isinstance(update, Payload) else self.encrypt(update)
        step = self._stepped(contributor.contribute(round, payload, metrics))
        self._kept = replace(self._kept, contribution=step.mail[0][1])
        return step

    # -- the roles ---------------------------------------------------------------------------------

    def _stepped(self, outputs: list[Output]) -> Step:
        step = Step.of(output for output in outputs if not isinstance(output, KeysReady))
        self._kept = replace(self._kept, serial=self._kept.serial + 1, outbox=step.mail)
        return step

    def _repeated(self, message: Message) -> Step:
        """Return the last mail again, and what is still to be done."""
        events: list[Event] = []
        working = (
            self.contributor is not None and self.contributor.state is ContributorState.WORKING
        )
        if working and isinstance(message, RoundStart):
            events = [TrainOn(message.round, message.model)]
        return Step(self.outbox, events)

    def _take(self, message: Message) -> list[Output]:
        """Give a message to the role that it is for."""
        if isinstance(message, Finish):
            return [Finished(printable(message.reason))]
        if isinstance(message, Rejection):
            return [Rejected(printable(message.reason))]
        if isinstance(message, DecryptionRequest):
            if self.decryptor is None:
                raise RefusedDecryption(SERVER, "this client holds no share of the key")
            return self.decryptor.receive(SERVER, message)
        if isinstance(message, RoundStart | RoundEnd):
            return self._follow(message)
        if isinstance(message, SessionOpen) and self.is_open:
            return []  # to a client that came back without having died
        return self._wire(self.setup.receive(SERVER, message))

    def _follow(self, message: RoundStart | RoundEnd) -> list[Output]:
        contributor = self.contributor
        # A server that has not read our first word yet takes us for the process before.
        if contributor is None:
            return []
        # Nor is the end of a round that began while this client was away any news to it.
        if isinstance(message, RoundEnd) and self._returned and message.round != contributor.round:
            return []
        outputs = contributor.receive(SERVER, message)
        self._tell_draw()
        self._returned = False
        self._kept = replace(self._kept, contribution=b"")
        return outputs

    def _tell_draw(self) -> None:
        """Let the decryptor know which groups this client contributes to."""
        if self.decryptor is not None and self.contributor is not None:
            self.decryptor.told(self.contributor.round, self.contributor.draw)

    def _refuse(self, message: Message, reason: str) -> Step:
        """Say why a request gets no answer; nothing has changed, so there is nothing to store."""
        if not isinstance(message, DecryptionRequest):
            return Step()
        answered = 0 if self.decryptor is None else self.decryptor.answered(message.round)
        refusal = Refusal(message.round, message.attempt, reason, message.transcript, answered)
        return Step.of([Send(SERVER, refusal)])

    def _wire(self, outputs: list[Output]) -> list[Output]:
        """Make the roles that the set-up's events call for; return what there is to be done."""
        done = list(outputs)
        for output in outputs:
            if isinstance(output, KeysReady) and output.keys.share is not None:
                self._hold(output.keys, None)
            elif isinstance(output, Opened) and self.setup.keys is not None:
                self.contributor = self._make_contributor(self.setup.keys, None)
                if self.decryptor is not None:
                    self.decryptor.end_confirmation()
                done += self.contributor.pledge()
        return done

    def _hold(self, keys: SessionKeys, memory: Memory | None) -> None:
        journal = None if self._journal is None else self._record
        self.decryptor = self.DECRYPTOR(keys, journal, memory)

    def _record(self, memory: Memory) -> None:
        """Have kept what the next answer means; before the rounds there is nothing to lose."""
        if self._journal is not None and self.is_open:
            self._journal(self._write(self._kept.serial + 1, memory))

    def _make_setup(self, stage: Stage | None) -> SetupClient:
        key = self._identity.private_key
        return self.SETUP(self.index, self.plan, key, self.roster, self._hedge, stage)

    def _make_contributor(self, keys: SessionKeys, progress: Progress | None) -> Contributor:
        encryptor = Encryptor(keys.plan, keys.key, keys.crs_seed, self._blocks)
        pledged, proving, name = None, None, keys.transcript
        if keys.plan.session.verified:
            prover = Prover(keys.plan, keys.key, self.index, self._identity.private_key)
            before = progress.pledged if progress else None
            pledged = PledgedEncryptor(self.index, name, encryptor, prover, before)
        elif keys.plan.session.proves:
            proving = ProvingEncryptor(self.index, name, encryptor, keys.key)
        groups = keys.plan.session.max_groups
        return Contributor(
            self.index,
            encryptor,
            pledged,
            proving=proving,
            transcript=name,
            progress=progress,
            hedge=self._hedge,
            groups=groups,
        )
