"""The server: set-up, training, results, exit code."""

import asyncio
import dataclasses
import logging
import sys
from contextlib import suppress
from pathlib import Path

from fl.config.configs import Config
from fl.config.exits import EXIT_FAILED
from fl.config.schemes import describe_sums
from fl.data import partition
from fl.data.load import load_dataset
from fl.data.user_code import UserError
from fl.launch.mpi import Launch
from fl.learning.global_model import GlobalModel
from fl.model.trainer import Trainer
from fl.privacy.privacy import describe, make_privacy
from fl.report import picture
from fl.report.metrics import History, Summary, excluded_clients, write_config
from fl.report.progress import Display
from fl.report.tensorboard import Events
from fl.run.background import Background
from fl.run.exits import end_of_server
from fl.run.rounds import TooManyFailures, Training
from fl.run.stopping import CLOSE_SECONDS, FLUSH_SECONDS, Stopped, stoppable
from fl.run.threads import block_map
from fl.schemes.scheme import Setting, scheme_of
from fl.state.directory import party_directory
from fl.state.server import ServerState
from fl.state.spending import Spending
from mphe import SERVER, Event, SessionReady, SetupAbandoned, Step
from mphe.run import Driver, Listener, Observer, ServerParty, Vault

SETUP_SECONDS = 60.0
PICTURE_FILE = "history.png"
EVENTS_DIRECTORY = "tensorboard"


class SessionSaver(Observer):
    """Saves the session as soon as it exists, before any client learns that it is open.

    Nothing is saved without a state directory.
    """

    def __init__(self, server: ServerParty, state: ServerState | None) -> None:
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
        scheme, size = scheme_of(config.codec.aggregation), self._trainer.size
        updates = scheme.codec(config.codec, size, self._privacy)
        self._model = GlobalModel(config.learning, self._trainer.get_vector(), updates)
        roster, blocks = launch.parties.roster, block_map(config.party.crypto_threads)
        length, judge = updates.payload_length, self._model.implausible
        setting = Setting(config.session, length, size, roster, blocks, judge)
        self._agreement = scheme.agree(setting)
        events = Events(self._directory / EVENTS_DIRECTORY)
        self.history = History(self._directory, events)
        self._background = Background(self._trainer, self._data, self._directory, self.draw)
        self._state = self._open_state(config.party.state_dir) if config.party.state_dir else None
        Spending(config.flags, self._state.vault if self._state else None, config.party.resume)
        self._ending = ""
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
        key, digest = self._launch.identity.private_key, self._agreement.digest
        directory = party_directory(state_dir, SERVER)
        return ServerState(Vault(directory, key, SERVER, digest), self._trainer.size)

    def _derived(self) -> dict[str, object]:
        return {
            "threshold": self._config.session.threshold,
            "dataset": self._data.name,
            "model_size": self._trainer.size,
            "plan": self._agreement.plan,
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
        restored = self._agreement.restored_server
        party = resumed.session(restored) if resumed else self._agreement.server()
        transport = await self._listen()
        driver = Driver(transport, self._display)
        self._summary.departures = driver.departures
        reason, closing = "training failed", FLUSH_SECONDS
        try:
            if not resumed:
                await self._set_up(driver, party)
            transport.limit(self._agreement.longest_of_client(is_open=True))
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
                seconds = max(SETUP_SECONDS, self._config.rounds.timeout)
                await training.rejoin(self._awaited(), seconds)
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
            for peer, farewell in party.finish(transport.connected, reason).mail:
                transport.send(peer, farewell)
            await transport.close(closing)

    async def _listen(self) -> Listener:
        party, parties = self._config.party, self._launch.parties
        context = parties.server_context() if party.tls else None
        limit = self._agreement.longest_of_client(is_open=party.resume)
        return await Listener.listen(party.host, party.port, parties.pins, context, limit)

    async def _set_up(self, driver: Driver, party: ServerParty) -> None:
        """Bring the clients together, where there is one make their key."""
        seconds = max(SETUP_SECONDS, self._config.rounds.timeout)
        observer = SessionSaver(party, self._state)
        # Where aggregates are verified, the first round needs what is pledged before it.
        await driver.run(party, Step(), seconds, observer)
        for event in observer.events:
            if isinstance(event, SetupAbandoned):
                raise event.error
            if isinstance(event, SessionReady):
                self._announce(event)

    def _awaited(self) -> set[int]:
        """Return the clients that may come back to a session that goes on."""
        everybody = set(range(1, self._config.rounds.num_clients + 1))
        return everybody - excluded_clients(self.history.records)

    def _announce(self, ready: SessionReady) -> None:
        notices = self._agreement.notices(ready)
        for line in notices.warnings:
            self._display.warn(line)
        for line in notices.lines:
            self._display.say(line)

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
            sums = describe_sums(config.codec.aggregation, config.session.encryption)
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
