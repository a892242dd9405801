"""The rounds of training on the server: model out, sum in, step, evaluate, record."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl.config.configs import RoundsConfig
from fl.learning.global_model import GlobalModel
from fl.model.trainer import Trainer
from fl.privacy.privacy import Privacy
from fl.report.metrics import (
    STAGES,
    Evaluation,
    History,
    LostGroup,
    RoundRecord,
    excluded_clients,
)
from fl.report.progress import Display
from fl.report.timings import Timings
from fl.run.background import Background
from fl.state.server import Checkpoint, ServerState, interrupted
from fl.state.spending import charged
from mphe import Abandoned, Closed, Counted, Event, Excluded, Overlap, Retried, Step, Summed
from mphe.run import Driver, Gathering, Observer, ServerParty, ServerTransport, name_clients
from mphe.update import Mean

CLIENT_STAGES = ("train", "encrypt")
"""Stages whose length clients report."""


class TooManyFailures(Exception):
    """Round after round was abandoned."""


class Watcher(Observer):
    """Passes on who was excluded, in a round or between two."""

    def __init__(self, excluded: Callable[[Excluded], None]) -> None:
        super().__init__()
        self._excluded = excluded

    def happened(self, event: Event) -> None:
        """Take an event, at the moment it occurs."""
        if isinstance(event, Excluded):
            self._excluded(event)


class RoundObserver(Watcher):
    """Times the stages of one round and counts its bytes at the socket."""

    def __init__(
        self,
        transport: ServerTransport,
        clients: Iterable[int],
        excluded: Callable[[Excluded], None],
        heard: Callable[[Event], None] = lambda event: None,
    ) -> None:
        super().__init__(excluded)
        self._heard = heard
        self._transport = transport
        self._clients = sorted(clients)
        self.started = time.perf_counter()
        self._sent = {index: transport.bytes_sent(index) for index in self._clients}
        self._received = {index: transport.bytes_received(index) for index in self._clients}
        self._at_close = (dict(self._sent), dict(self._received))
        self._closed: float | None = None
        self._timings: list[Timings] = []
        self._uploads: list[int] = []
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.outcome: Summed | Abandoned | None = None
        self._last_share = 0.0

    def happened(self, event: Event) -> None:
        """Take the time and the counters at each milestone."""
        super().happened(event)
        self._heard(event)
        if isinstance(event, Counted):
            self._timings.append(Timings.from_bytes(event.metrics))
            received = self._transport.bytes_received(event.client)
            self._uploads.append(received - self._received.get(event.client, 0))
        elif isinstance(event, Closed):
            self.close()
        elif isinstance(event, Summed | Abandoned):
            self._end(event)

    def handled(self, events: list[Event], seconds: float) -> None:
        """Attribute the server's own work."""
        if any(isinstance(event, Counted) for event in events):
            self.seconds["aggregate"] += seconds
        elif any(isinstance(event, Summed) for event in events):
            self._last_share = seconds

    def close(self) -> None:
        """Take the time when decryption begins; also after a restart in the middle of it."""
        now = time.perf_counter()
        self._closed = now
        clients, transport = self._clients, self._transport
        self._at_close = (
            {index: transport.bytes_sent(index) for index in clients},
            {index: transport.bytes_received(index) for index in clients},
        )
        slowest = max(self._timings, key=lambda one: one.train + one.encrypt, default=Timings())
        self.seconds["train"] = slowest.train
        self.seconds["encrypt"] = slowest.encrypt
        rest = now - self.started - slowest.train - slowest.encrypt - self.seconds["aggregate"]
        self.seconds["upload"] = max(0.0, rest)

    def _end(self, event: Summed | Abandoned) -> None:
        self.outcome = event
        if self._closed is not None:
            waited = time.perf_counter() - self._closed
            self.seconds["recover"] = self._last_share if isinstance(event, Summed) else 0.0
            self.seconds["decrypt"] = max(0.0, waited - self.seconds["recover"])

    def stages(self, hidden: bool) -> dict[str, float | None]:
        """Return the seconds of each stage; where clients hide theirs, None for these."""
        return {
            stage: None if hidden and stage in CLIENT_STAGES else seconds
            for stage, seconds in self.seconds.items()
        }

    def upload_bytes(self) -> int:
        """Return the mean bytes of a contribution."""
        return _mean(self._uploads)

    def download_bytes(self) -> int:
        """Return the mean bytes that a client was sent before decryption."""
        sent = (self._at_close[0][index] - self._sent[index] for index in self._clients)
        return _mean([count for count in sent if count])

    def decryption_bytes(self) -> int:
        """Return the mean bytes of requests and shares of those that were asked."""
        sent, received = self._at_close
        asked = []
        for index in self._clients:
            share = self._transport.bytes_received(index) - received[index]
            if share:
                asked.append(share + self._transport.bytes_sent(index) - sent[index])
        return _mean(asked)


def _mean(counts: list[int]) -> int:
    return round(sum(counts) / len(counts)) if counts else 0


class Training:
    """Holds the model and runs rounds until they are done or keep failing.

    Attributes:
        ending: why it ended before its last round, in words for people; else empty.
        finished: the last round that was written down, and the weights after it, float32 (size,).
    """

    def __init__(
        self,
        config: RoundsConfig,
        model: GlobalModel,
        driver: Driver,
        party: ServerParty,
        trainer: Trainer,
        background: Background,
        history: History,
        display: Display,
        state: ServerState | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        """Start from the model's weights; `state` keeps each round for a restart.

        The trainer's own weights are `background`'s.
        """
        self._state = state
        self._privacy = privacy
        self.ending = ""
        self._done = 0
        self._config = config
        self._driver = driver
        self._party = party
        self._has_classes = trainer.has_classes
        self._background = background
        self._history = history
        self._display = display
        self._model = model
        self.finished = (0, self._model.weights)
        self._failures = 0
        self._droppers: frozenset[int] = frozenset()
        self._excluded: set[int] = set()
        self._found_out: list[Excluded] = []
        self._changed = self._evaluated = 0
        self._warned = False
        self._evaluation: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run all rounds, each with the members that are connected at its start.

        Raises:
            TooManyFailures: `max_failed_rounds` were abandoned in a row.
        """
        try:
            await self._run()
        except TooManyFailures:
            await self._evaluate_last()
            raise
        except BaseException:
            if self._evaluation is not None:
                self._evaluation.cancel()
            raise
        await self._evaluate_last()

    async def _run(self) -> None:
        for number in range(self._done + 1, self._config.rounds + 1):
            if self._budget_is_spent(number):
                return
            await self._driver.catch_up(self._party, Watcher(self._exclude))
            present = self._party.members & set(self._driver.transport.connected)
            if self._state is not None:
                self._state.starting(number)
            record = await self._round(number, present)
            self._keep(record)
            self._display.round_ended(record)
            self._evaluate_beside()
            # After the last round too: who is not there would not hear that it was the last.
            seconds = self._config.timeout
            droppers = self._droppers - self._excluded
            await self._driver.await_droppers(self._party, droppers, seconds)
            self._failures = self._failures + 1 if record.abandoned else 0
            if self._failures >= self._config.max_failed:
                raise TooManyFailures(
                    f"{self._failures} rounds in a row were abandoned, the last because "
                    f"{record.abandoned}; restart with all clients, or a lower --resiliency"
                )
            if self._failures and number < self._config.rounds:
                await self._wait_for_more()

    def _budget_is_spent(self, number: int) -> bool:
        """Return whether the sum of this round would exceed the privacy budget, and say so."""
        privacy = self._privacy
        if privacy is None or charged(self._history.records) < privacy.budget.rounds:
            return False
        self.ending = (
            f"the privacy budget is spent after round {number - 1}: one more would exceed "
            f"--dp_epsilon {privacy.epsilon:g}; the model is final"
        )
        return True

    async def _wait_for_more(self) -> None:
        """After an abandoned round, give those who are gone the time to come back."""
        absent = self._party.members - set(self._driver.transport.connected)
        if absent:
            seconds = self._config.timeout
            self._display.say(f"waits up to {seconds:g} s for {name_clients(absent)} to come back")
            watcher = Watcher(self._exclude)
            await self._driver.await_return(self._party, absent, seconds, watcher)

    def _exclude(self, found: Excluded) -> None:
        """Tell at once who takes no further part; the round's line has it too."""
        self._display.warn(f"client {found.client} is excluded: {found.reason}")
        self._found_out.append(found)

    def _taking_part(self) -> list[int]:
        """Return the clients that were not excluded in a round that has ended."""
        everybody = range(1, self._config.num_clients + 1)
        return [index for index in everybody if index not in self._excluded]

    def _hear(self, event: Event) -> None:
        """Store what the next request for decryption needs before it is sent; tell of exposure."""
        if isinstance(event, Closed | Retried) and self._state is not None:
            self._state.keep_session(self._party.state)
        elif isinstance(event, Overlap):
            self._display.warn(
                f"round {event.round}: beside the sum that was lost before, this one shows the "
                f"update of {name_clients(event.exposed)} to whoever knows both; "
                "nobody came back in time to hide it"
            )

    async def rejoin(self, awaited: set[int], seconds: float) -> None:
        """Wait for the clients of a session that goes on; end the round whose sum was kept."""
        party, driver, number = self._party, self._driver, self._done + 1
        kept = party.keeps_sum
        # All connections of the process before are gone.
        gone = party.lost(*range(1, self._config.num_clients + 1))
        if not kept:
            await driver.run(Gathering(party, awaited), gone, seconds, Watcher(self._exclude))
            await driver.run(party, Step(), self._config.timeout, Watcher(self._exclude))
            return
        self._display.say(f"waits for decryptors: the sum of round {number} is kept")
        driver.round = number
        observer = RoundObserver(driver.transport, awaited, self._exclude, self._hear)
        observer.close()
        await driver.run(Gathering(party, awaited), gone, seconds, observer)
        await driver.run(party, Step(), self._config.timeout, observer)
        record = await self._conclude(number, observer)
        self._keep(record)
        self._display.round_ended(record)
        self._done, self._failures = number, int(record.abandoned is not None)

    def resume(self, checkpoint: Checkpoint | None, started: int) -> None:
        """Go on after the last finished round; those that were started after it are lost.

        But for one whose sum is kept, which `rejoin` ends. A lost round's number is not used
        again: decryptors answer for one aggregate a round.
        """
        ended = 0
        if checkpoint is not None:
            ended = checkpoint.round
            self._model.restore(checkpoint.model, checkpoint.averages)
        self.finished = (ended, self._model.weights)
        self._changed, self._evaluated = _standing(self._history.records)
        self._excluded = excluded_clients(self._history.records)
        party = self._party
        goes_on = party.keeps_sum and ended < started == party.round
        for number in range(ended + 1, started + (not goes_on)):
            record = interrupted(number, self._taking_part())
            if self._privacy is not None:
                rounds = charged(self._history.records) + 1
                record = replace(record, epsilon=self._privacy.budget.spent(rounds))
            self._keep(record)
            self._display.round_ended(record)
        self._done = max(started - goes_on, ended)
        if not goes_on:
            # What the server knows of a round that has ended is of no use.
            party.abandon_round("the round has ended")
            party.resume_at(self._done)

    def _keep(self, record: RoundRecord) -> None:
        """Write down a round that has ended: first what a restart needs, then its line."""
        if self._state is not None:
            self._state.finished(self._model.sent(), record, self._model.averages())
            # What is lost, who is suspected and who was excluded must outlive this process.
            self._state.keep_session(self._party.state)
        self._history.append(record)
        self._excluded.update(found.client for found in record.excluded)
        self.finished = (record.round, self._model.weights)
        self._background.keep(*self.finished)

    async def _round(self, number: int, present: set[int]) -> RoundRecord:
        config, driver = self._config, self._driver
        driver.round = number
        self._droppers = config.dropout.of(number) & present
        driver.excused = set(self._droppers)
        observer = RoundObserver(driver.transport, present, self._exclude, self._hear)
        step = self._party.start_round(self._model.sent().to_bytes(), present)
        await driver.run(self._party, step, config.timeout, observer)
        return await self._conclude(number, observer)

    async def _conclude(self, number: int, observer: RoundObserver) -> RoundRecord:
        """Step the model by the sum of a round, if there is one; return the round's record."""
        outcome = observer.outcome
        # The driver returns only after the aggregator has ended the round.
        if outcome is None:
            raise RuntimeError(f"round {number} ended without an outcome")
        mean = None
        if isinstance(outcome, Summed):
            mean = self._step(number, outcome)
            self._changed = number
            self._warn_of_nothing(mean)
        started = time.perf_counter()
        score = await self._evaluate_within(number) if mean is not None else None
        observer.seconds["evaluate"] = time.perf_counter() - started
        return self._record(number, outcome, observer, mean, score)

    def _step(self, number: int, summed: Summed) -> Mean:
        """Step the model by a round's sum, or by those of its groups that are plausible."""
        groups = [
            (group.total, len(group.contributors))
            for group in summed.groups
            if group.total is not None
        ]
        return self._model.step(number, summed.total, len(summed.contributors), groups)

    def _warn_of_nothing(self, mean: Mean) -> None:
        """Say once when nothing is learnt because every value of every update was rounded to 0."""
        if not self._warned and not mean.update.any():
            self._warned = True
            self._display.warn(
                "the sum is 0, so nothing is learnt: values are rounded to a grid that --clip_norm "
                f"{self._model.clip_norm:g} makes too coarse; lower it, or check the data"
            )

    async def _evaluate_within(self, number: int) -> Evaluation | None:
        """Evaluate before the round ends, if this is one that must be."""
        every, last = self._config.evaluate_every, self._config.rounds
        if number != last and not (every and number % every == 0):
            return None
        if self._evaluation is not None:
            await self._evaluation
        self._evaluated = number
        return await self._background.evaluate(number, self._model.weights)

    def _evaluate_beside(self) -> None:
        """Evaluate while the next round runs, unless that is under way, or rounds are given."""
        if self._evaluation is not None and self._evaluation.done():
            self._evaluation.result()  # raises what went wrong in it
            self._evaluation = None
        new = self._changed > self._evaluated
        if new and not self._config.evaluate_every and self._evaluation is None:
            self._evaluated = self._changed
            work = self._evaluate(self._changed, self._model.weights)
            self._evaluation = asyncio.create_task(work)

    async def _evaluate(self, round: int, weights: NDArray[np.float32]) -> None:
        """Evaluate the weights of a round, and write that down as a line of its own."""
        found = await self._background.evaluate(round, weights)
        self._history.evaluated(found)
        self._display.evaluated(found)

    async def _evaluate_last(self) -> None:
        """After the last round: what the model is worth is known however training ended."""
        if self._evaluation is not None:
            await self._evaluation
        if self._changed > self._evaluated:
            await self._evaluate(self._changed, self._model.weights)

    def _record(
        self,
        number: int,
        outcome: Summed | Abandoned,
        observer: RoundObserver,
        mean: Mean | None,
        score: Evaluation | None,
    ) -> RoundRecord:
        counted = outcome.contributors if isinstance(outcome, Summed) else ()
        epsilon = None
        if self._privacy is not None:
            rounds = charged(self._history.records) + (outcome.attempts > 0)
            epsilon = self._privacy.budget.spent(rounds)
        excluded, self._found_out = tuple(self._found_out), []
        return RoundRecord(
            round=number,
            contributors=counted,
            dropped=tuple(index for index in self._taking_part() if index not in counted),
            accuracy=score.accuracy if score is not None else None,
            loss=score.loss if score is not None else None,
            train_loss=mean.loss if mean is not None else None,
            train_accuracy=mean.accuracy if mean is not None and self._has_classes else None,
            samples=mean.samples if mean is not None else None,
            seconds=time.perf_counter() - observer.started,
            seconds_by_stage=observer.stages(hidden=self._privacy is not None),
            upload_bytes_per_client=observer.upload_bytes(),
            download_bytes_per_client=observer.download_bytes(),
            decryption_bytes_per_decryptor=observer.decryption_bytes(),
            attempts=outcome.attempts,
            saturated=(mean.clipped if mean else 0) if self._privacy is None else None,
            abandoned=outcome.reason if isinstance(outcome, Abandoned) else None,
            epsilon=epsilon,
            groups=len(outcome.groups) if isinstance(outcome, Summed) else 0,
            implausible=_lost_groups(outcome),
            excluded=excluded,
        )


def _lost_groups(outcome: Summed | Abandoned) -> tuple[LostGroup, ...]:
    """Return the groups whose sums are in no mean."""
    groups = outcome.groups if isinstance(outcome, Summed) else ()
    lost = (group for group in groups if group.total is None)
    return tuple(LostGroup(group.contributors, group.reason) for group in lost)


def _standing(records: list[RoundRecord]) -> tuple[int, int]:
    """Return the last round that changed the model, and the last that was evaluated; else 0."""
    changed = max((r.round for r in records if r.abandoned is None), default=0)
    return changed, max((r.round for r in records if r.loss is not None), default=0)
