"""The server: set-up, training, results, exit code."""

import asyncio
import dataclasses
import logging
import sys
from contextlib import suppress
from pathlib import Path

from fl.config.configs import Config
from fl.config.exits import EXIT_FAILED
from fl.data import partition
from fl.data.load import load_dataset
from fl.data.user_code import UserError
from fl.launch.mpi import Launch
from fl.learning.codecs import codec_for
from fl.learning.global_model import GlobalModel
from fl.model.trainer import Trainer
from fl.privacy.privacy import describe, make_privacy
from fl.report import picture
from fl.report.metrics import History, Summary, write_config
from fl.report.progress import Display
from fl.report.tensorboard import Events
from fl.run.background import Background
from fl.run.exits import end_of_server
from fl.run.rounds import TooManyFailures, Training
from fl.run.stopping import CLOSE_SECONDS, FLUSH_SECONDS, Stopped, stoppable
from fl.run.threads import block_map
from fl.schemes.plain import PlainServer
from fl.state.directory import party_directory
from fl.state.server import ServerState
from fl.state.spending import Spending
from mphe.net.tcp import Server as Listener
from mphe.net.tls import fingerprint, public_key, server_context
from mphe.plan.plan import make_plan
from mphe.roles.machine import Event
from mphe.roles.setup.server import SetupAbandoned
from mphe.roles.step import Step
from mphe.run.driver import Driver, Observer, name
from mphe.run.gathering import Gathering
from mphe.run.party import ServerParty
from mphe.run.vault import Vault
from mphe.server import Server, SessionReady
from mphe.wire import codec
from mphe.wire.messages import SERVER, Finish
from mphe.wire.sizes import longest_message

SETUP_SECONDS = 60.0
PICTURE_FILE = "history.png"
EVENTS_DIRECTORY = "tensorboard"


class SessionSaver(Observer):
    """Saves the session as soon as it exists, before any client learns that it is open.

    Nothing is saved without a state directory.
    """

    def __init__(self, server: Server, state: ServerState | None) -> None:
        super().__init__()
        self._server = server
        self._state = state

    def happened(self, event: Event) -> None:
        """Take an event, at the moment it occurs."""
        super().happened(event)
        if isinstance(event, SessionReady) and self._state is not None:
            self._state.keep_session(self._server.state)


class Run:
    """One run of the server, from listening to the summary."""

    def __init__(self, config: Config, launch: Launch, display: Display) -> None:
        """Load the data and the model, and write config.json."""
        self._config = config
        self._launch = launch
        self._display = display
        self._directory = Path(launch.output)
        self._data = load_dataset(launch.dataset, config.data.seed)
        self._trainer = Trainer(config.learning.seed, config.learning.model, self._data)
        labels = self._data.train_y if launch.processes else None
        self._privacy = make_privacy(
            config.privacy, config.codec, config.data, self._trainer.size, labels
        )
        updates = codec_for(config.codec, self._trainer.size, self._privacy)
        self._model = GlobalModel(config.learning, self._trainer.get_vector(), updates)
        self._sent = updates.payload_length
        self._plan = make_plan(config.session.parameters(self._sent))
        events = Events(self._directory / EVENTS_DIRECTORY)
        self.history = History(self._directory, events)
        self._background = Background(self._trainer, self._data, self._directory, self.draw)
        self._state = self._open_state(config.party.state_dir) if config.party.state_dir else None
        Spending(config.flags, self._state.vault if self._state else None, config.party.resume)
        self._blocks = block_map(config.party.crypto_threads)
        self._ending = ""
        self._identities = {
            index: public_key(certificate)
            for index, certificate in enumerate(launch.certificates)
            if index != SERVER
        }
        self._summary = Summary(self.history)
        display.say(self._trainer.describe())
        if config.privacy is not None and self._privacy is not None:
            for line in describe(config.privacy, config.codec, self._privacy):
                display.say(line)
        if launch.processes:  # else clients may have data of their own
            self._show_split()
        write_config(self._directory, dict(config.flags), self._derived())

    def _show_split(self) -> None:
        config, labels = self._config.data, self._data.train_y
        how = config.partition
        described = partition.describe(
            labels, partition.split(how, labels, config.num_clients, config.seed)
        )
        partition.save(self._directory, described, how)
        for line in partition.lines(described, how):
            self._display.say(line)
        batch = self._config.learning.batch_size
        if batch > (least := min(entry["samples"] for entry in described)):
            self._display.say(
                f"note: --batch_size_per_worker {batch} takes all samples of "
                f"clients that have fewer (the smallest has {least})"
            )

    def _open_state(self, state_dir: str) -> ServerState:
        """Return the state directory's keeper; StateError when the directory is of no use."""
        key, digest = self._launch.identity.private_key, self._plan.digest
        directory = party_directory(state_dir, SERVER)
        return ServerState(Vault(directory, key, SERVER, digest), self._trainer.size)

    def _derived(self) -> dict[str, object]:
        plan = dataclasses.asdict(self._plan) if self._config.codec.aggregation == "mphe" else None
        return {
            "threshold": self._config.session.threshold,
            "dataset": self._data.name,
            "model_size": self._trainer.size,
            "plan": plan,
            "privacy": dataclasses.asdict(self._privacy) if self._privacy else None,
        }

    async def play(self) -> None:
        """Set up, train and save.

        Raises:
            StateError: the state directory is of no use.
            AddressError: the port is taken.
            SetupFailed: no key came about.
            TooManyFailures: training ended early; the model so far is saved.
            OSError: results cannot be written.
        """
        resumed = self._state if self._config.party.resume else None
        # What is damaged is refused before any client is let in.
        checkpoint = resumed.restore(self.history) if resumed else None
        kept = resumed.session(self._plan, self._identities, self._blocks) if resumed else None
        transport = await self._listen()
        driver = Driver(transport, self._display)
        self._summary.departures = driver.departures
        reason, closing = "training failed", FLUSH_SECONDS
        try:
            party = await (self._gather(driver, kept) if resumed else self._set_up(driver))
            training = Training(
                self._config.rounds,
                self._model,
                driver,
                party,
                self._trainer,
                self._background,
                self.history,
                self._display,
                self._state,
                self._privacy,
            )
            if resumed:
                training.resume(checkpoint, resumed.started())
            try:
                await training.run()
                self._ending = training.ending
                reason = "training is over"
            finally:
                self._background.close(*training.finished)
        except asyncio.CancelledError:
            reason, closing = "the server was stopped", CLOSE_SECONDS
            raise
        finally:
            for peer in transport.connected:
                transport.send(peer, codec.encode(Finish(reason)))
            await transport.close(closing)

    async def _listen(self) -> Listener:
        party, launch = self._config.party, self._launch
        clients = launch.certificates[1:]
        pins = {fingerprint(text): index for index, text in enumerate(clients, start=1)}
        context = server_context(launch.identity, clients) if party.tls else None
        limit = longest_message(self._plan, 4 * self._trainer.size)
        return await Listener.listen(party.host, party.port, pins, context, limit)

    async def _set_up(self, driver: Driver) -> ServerParty:
        """Return the server, once the clients agree on a key."""
        seconds = max(SETUP_SECONDS, self._config.rounds.timeout)
        if self._config.codec.aggregation == "plain":
            plain = self._plain()
            await driver.run(plain, Step(), seconds, Observer())
            if self._state is not None:
                self._state.keep_session(b"")
            return plain
        server = Server(self._plan.session, self._identities, blocks=self._blocks)
        observer = SessionSaver(server, self._state)
        # Where aggregates are verified, the first round needs what is pledged before it.
        await driver.run(server, Step(), seconds, observer)
        for event in observer.events:
            if isinstance(event, SetupAbandoned):
                raise event.error
            if isinstance(event, SessionReady):
                self._announce(event)
        return server

    def _plain(self) -> PlainServer:
        session = self._config.session
        return PlainServer(self._sent, session.num_clients, session.min_contributors)

    async def _gather(self, driver: Driver, kept: Server | None) -> ServerParty:
        """Return the server that was kept, with whoever is back by then."""
        timeout = self._config.rounds.timeout
        seconds = max(SETUP_SECONDS, timeout)
        if kept is None:
            plain = self._plain()
            await driver.run(plain, Step(), seconds, Observer())
            return plain
        everybody = range(1, self._config.rounds.num_clients + 1)
        await driver.run(Gathering(kept, everybody), Step(), seconds, Observer())
        await driver.run(kept, Step(), timeout, Observer())
        return kept

    def _announce(self, done: SessionReady) -> None:
        plan, size = self._plan, self._trainer.size
        if done.unconfirmed:
            self._display.warn(
                f"{name(done.unconfirmed)} cannot decrypt: the shares dealt to them do not fit"
            )
        self._display.say(
            f"collective key of {len(done.qualified)} clients, any {plan.session.threshold} of "
            f"{len(done.decryptors)} decrypt; {plan.upload_bytes / size:.2f} bytes a value "
            f"({plan.session.encryption})"
        )

    def stopped(self, reason: str) -> None:
        """Say at once that a signal came: some launchers leave this process no time for more."""
        done, place = len(self.history.records), self._directory
        after = f"after {done} rounds, which are in {place} with their model"
        self._display.urge(f"server: {reason} {after if done else 'before the first round ended'}")

    def conclude(self) -> None:
        """Show the final table."""
        self._display.finish(self._summary, f"results in {self._directory}")
        if self._ending:
            self._display.warn(self._ending)

    def draw(self) -> None:
        """Draw the rounds that ended, if any; OSError when the picture cannot be written."""
        if self.history.records:
            config, learning = self._config, self._config.learning
            plain = config.codec.aggregation == "plain"
            sums = "plain" if plain else f"mphe {config.session.encryption}"
            private = f", ε = {config.privacy.epsilon:g}" if config.privacy else ""
            title = (
                f"{config.session.num_clients} clients, {self._data.name}, {sums}, "
                f"seed {learning.seed}\n"
                f"model {learning.model}, learning rate {learning.learning_rate:g}, "
                f"batch {learning.batch_size}{private}"
            )
            figure = picture.draw_history(self.history.records, title)
            picture.write(figure, self._directory / PICTURE_FILE)


def run(config: Config, launch: Launch) -> int:
    """Play the server to the end; return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    display = Display(config.rounds.rounds, quiet=config.party.quiet)
    try:
        run = Run(config, launch, display)
        code = _play(run, display)
        run.draw()  # last, since a signal leaves little time for it
        return code
    except UserError:
        with suppress(OSError):
            Path(launch.output).rmdir()  # empty: nothing has been written
        raise
    except Exception as error:
        ending = end_of_server(error, launch.output)
        if ending is None:
            raise
        return _fail(display, ending.line, ending.code)
    finally:
        display.close()  # whatever else went wrong, the terminal gets its cursor back


def _play(run: Run, display: Display) -> int:
    """Play a run whose rounds are kept however it ends; show its summary, return the code."""
    try:
        asyncio.run(stoppable(run.play(), run.stopped))
    except TooManyFailures as error:
        run.conclude()
        return _fail(display, str(error), EXIT_FAILED)
    except Stopped as stopped:
        run.conclude()
        return stopped.code
    run.conclude()
    return 0


def _fail(display: Display, line: str, code: int) -> int:
    display.close()
    sys.stdout.flush()  # both may go to one file: what was said before comes first
    sys.stderr.write(f"server: {line}\n")
    return code
