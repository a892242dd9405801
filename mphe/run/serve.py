"""A whole session of a server over TCP and TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mphe.errors import EncodingError, SetupFailed
from mphe.net.tcp import Listener
from mphe.plan.agreement import SessionParameters
from mphe.roles.machine import Event
from mphe.roles.rounds.judging import Judge
from mphe.roles.rounds.outcomes import Abandoned, Closed, Retried, Summed
from mphe.roles.setup.server import SetupAbandoned
from mphe.roles.step import Step
from mphe.run.credentials import Parties
from mphe.run.driver import Driver, LogReporter, Observer, Reporter
from mphe.run.gathering import Gathering
from mphe.run.vault import StateError, Vault
from mphe.server import Server
from mphe.wire.messages import SERVER
from mphe.wire.sizes import longest_of_client

SESSION = "session"
CLOSE_SECONDS = 5.0
Outcome = Summed | Abandoned
NextModel = Callable[[Outcome], bytes | None]
"""What a round's outcome makes of the model; None ends the session."""


async def serve(
    host: str,
    port: int,
    parameters: SessionParameters,
    parties: Parties,
    model: bytes,
    then: NextModel,
    *,
    judge: Judge | None = None,
    state_dir: Path | None = None,
    setup_timeout: float = 60.0,
    round_timeout: float = 60.0,
    reporter: Reporter | None = None,
) -> None:
    """Make a key with the clients and run rounds until `then` ends them, or none is left.

    Args:
        host: to listen on.
        port: to listen on.
        parameters: the same for all parties.
        parties: own key, and everybody's certificates.
        model: opaque bytes that the first round starts from.
        then: returns the next round's model from what became of the last.
        judge: says why a sum is implausible, as for `mphe.Server`.
        state_dir: where the session is kept for a restart. A round whose decryption had begun is
            ended then, and `then` may be told of it twice: its number tells; another one is lost.
        setup_timeout: seconds to wait for one answer in the set-up.
        round_timeout: seconds to wait in a round at most, less once waits were shorter.
        reporter: tells people who is lost and back; by default the log "mphe.run".

    Raises:
        AddressError: the port is taken, or the address is none of this machine's.
        SetupFailed: no key came about.
        StateError: the state directory is of no use.
    """
    session = _Session(parameters, parties, judge, state_dir)
    plan = session.server.plan
    limit = longest_of_client(plan, is_open=session.server.session is not None)
    context = parties.server_context()
    transport = await Listener.listen(host, port, parties.pins, context, limit)
    driver = Driver(transport, reporter or LogReporter())
    over = False
    try:
        await session.open(driver, setup_timeout)
        transport.limit(longest_of_client(plan, is_open=True))
        await session.rounds(driver, model, then, round_timeout)
        over = True
    finally:
        # A session that is kept goes on: its clients wait for the next process.
        if over or state_dir is None:
            farewell = "the session is over" if over else "the server was stopped"
            for peer, data in session.server.finish(transport.connected, farewell).mail:
                transport.send(peer, data)
        await transport.close(CLOSE_SECONDS)
        session.close()


class _Storing(Observer):
    """Stores the server before others are asked to decrypt, so that a restart can go on."""

    def __init__(self, store: Callable[[], None]) -> None:
        super().__init__()
        self._store = store

    def happened(self, event: Event) -> None:
        """Take an event, at the moment it occurs."""
        super().happened(event)
        if isinstance(event, Closed | Retried):
            self._store()

    def outcome(self) -> Outcome | None:
        """Return how the round ended, None while it has not."""
        ends = [event for event in self.events if isinstance(event, Summed | Abandoned)]
        return ends[0] if ends else None


class _Session:
    """A server, and the vault that it is kept in."""

    def __init__(
        self,
        parameters: SessionParameters,
        parties: Parties,
        judge: Judge | None,
        state_dir: Path | None,
    ) -> None:
        self._judge = judge
        self.server = Server(parameters, parties.roster, judge=judge)
        self._vault: Vault | None = None
        self._resumed = False
        self._ended: Outcome | None = None
        if state_dir is not None:
            key, digest = parties.own.private_key, self.server.plan.digest
            self._vault = Vault(state_dir, key, SERVER, digest)
            self._restore(self._vault)

    def _restore(self, vault: Vault) -> None:
        """Go on with a session that was kept; StateError when it is damaged or another."""
        state = vault.read(SESSION)
        if state is None:
            return
        try:
            kept = Server.restore(state, judge=self._judge)
        except EncodingError as error:
            raise vault.refusal(SESSION, str(error)) from error
        if kept.plan != self.server.plan or kept.roster != self.server.roster:
            raise StateError(f"{vault.directory} holds the session of other parties")
        if not kept.keeps_sum:
            # Clients do not send the same update twice, so there is nothing to wait for.
            kept.abandon_round("the server was started again")
        self.server, self._resumed = kept, True

    def close(self) -> None:
        """Let another process use the vault."""
        if self._vault is not None:
            self._vault.close()

    def _keep(self) -> None:
        if self._vault is not None:
            self._vault.write(SESSION, self.server.state)

    async def open(self, driver: Driver, seconds: float) -> None:
        """Make the key, or wait for the clients of a session that goes on, and end its round."""
        server, observer = self.server, _Storing(self._keep)
        if self._resumed:
            driver.round = server.round
            # All connections of the process before are gone.
            gone = server.lost(*server.roster)
            awaited = set(server.roster) - server.excluded
            await driver.run(Gathering(server, awaited), gone, seconds, observer)
        await driver.run(server, Step(), seconds, observer)
        self._ended = observer.outcome()
        for event in observer.events:
            if isinstance(event, SetupAbandoned):
                raise event.error
        if self.server.session is None:
            raise SetupFailed("it ended without a key", ())
        if self._ended is None:  # else `then` is told first
            self._keep()

    async def rounds(self, driver: Driver, model: bytes, then: NextModel, seconds: float) -> None:
        """Run rounds with whoever is there at their start."""
        server = self.server
        wanted: bytes | None = model
        if self._ended is not None:
            wanted = then(self._ended)
            self._keep()
        while wanted is not None and server.round < server.plan.session.rounds:
            await driver.catch_up(server, Observer())
            present = server.members & set(driver.transport.connected)
            driver.round = server.round + 1
            step, observer = server.start_round(wanted, present), _Storing(self._keep)
            self._keep()  # that this number is used, before anybody hears of it
            await driver.run(server, step, seconds, observer)
            outcome = observer.outcome()
            # The driver returns only after the round has ended.
            if outcome is None:
                raise RuntimeError(f"round {server.round} ended without an outcome")
            wanted = then(outcome)
            self._keep()
            absent = server.members - set(driver.transport.connected)
            if wanted is not None and absent and isinstance(outcome, Abandoned):
                # Round after round would be lost before anybody could come back.
                await driver.await_return(server, absent, seconds, Observer())
