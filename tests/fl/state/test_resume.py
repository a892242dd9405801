"""A server that dies anywhere in a round and goes on: in one process, without TensorFlow."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from fl.config.configs import Config
from fl.data.load import Dataset
from fl.learning.global_model import GlobalModel
from fl.model.optimise import ServerOptimizer
from fl.model.round_model import RoundModel
from fl.report.metrics import INTERRUPTED, Evaluation, History, RoundRecord
from fl.report.progress import Display
from fl.run.background import Background
from fl.run.client import ClientWork
from fl.run.rounds import Training
from fl.schemes.scheme import codec_for
from fl.state.server import ServerState, read_record, restore_history
from fl.state.spending import charged
from mphe import Client, Identity, Roster, Server, Step
from mphe.net.loopback import LoopbackClient, Network
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.setup import returning
from mphe.run.driver import Driver, Observer
from mphe.run.gathering import Gathering
from mphe.run.session import ClientSession, follow
from mphe.run.vault import StateError, Vault
from mphe.update import PublicRange
from mphe.wire import codec
from mphe.wire.messages import Finish, Join
from tests.fl.federation import (
    SIZE,
    FakeLearner,
    FakeTrainer,
    agreement_of,
    expected_weights,
    flags,
    plan_of,
)
from tests.fl.records import LOST, OUT
from tests.simulation import Simulation

POINTS = (
    *("before start", "after start", "in round"),
    *("in decryption", "before finish", "after finish"),
)


class Killed(BaseException):
    """The server dies here."""


class DyingState(ServerState):
    """Dies at one point of one round."""

    def __init__(self, vault: Vault, point: str, round: int) -> None:
        super().__init__(vault, SIZE)
        self.point, self.round = point, round

    def die(self, point: str, round: int) -> None:
        if (point, round) == (self.point, self.round):
            raise Killed

    def starting(self, round: int) -> None:
        self.die("before start", round)
        super().starting(round)
        self.die("after start", round)

    def finished(self, model: RoundModel, record: RoundRecord, averages: bytes = b"") -> None:
        self.die("before finish", record.round)
        super().finished(model, record, averages)
        self.die("after finish", record.round)

    def keep_session(self, server: bytes) -> None:
        super().keep_session(server)
        kept = Server.restore(server)
        if kept.keeps_sum:
            self.die("in decryption", kept.round)


class World:
    """Clients that outlive their server, and one server after the other."""

    def __init__(self, args: Config, directory: Path) -> None:
        self.args, self.directory = args, directory
        self.plan = plan_of(args, SIZE)
        self.secrets = {
            i: Ed25519PrivateKey.generate() for i in range(1, args.session.num_clients + 1)
        }
        self.keys = {i: key.public_key().public_bytes_raw() for i, key in self.secrets.items()}
        self.own = Ed25519PrivateKey.generate()
        self.network = Network()
        self.changed = asyncio.Event()

    async def client(self, index: int) -> None:
        learner: Any = FakeLearner(self.args, index, lambda index, round: None)
        party = Client(index, self.plan.session, Identity(self.secrets[index]), self.keys)
        session = ClientSession(party, self.network.connect(index), ClientWork(learner))
        session.start()

        async def connect() -> LoopbackClient:
            await self.changed.wait()
            return self.network.connect(index)

        await follow(session, connect)

    async def serve(self, point: str, round: int, resume: bool) -> tuple[History, np.ndarray]:
        vault = Vault(self.directory / "server", self.own, 0, self.plan.digest)
        state = DyingState(vault, point, round)
        history = History(self.directory)
        driver = Driver(self.network.server, Display(1, Console(quiet=True)))
        try:
            checkpoint = state.restore(history) if resume else None
            if resume:
                agreement = agreement_of(self.args, SIZE, Roster(self.keys))
                server: Any = state.session(agreement.restored_server)
            else:
                server = Server(self.plan.session, self.keys)
                await driver.run(server, Step(), 20, Observer())
                state.keep_session(server.state)
            training, background = self.training(driver, server, history, state)
            if resume:
                training.resume(checkpoint, state.started())
            try:
                if resume:
                    await training.rejoin(set(self.keys), 20)
                await training.run()
            finally:
                background.close(*training.finished)  # the dead have no threads
            return history, training.finished[1]
        finally:
            vault.close()

    def training(
        self, driver: Driver, server: Any, history: Any, state: Any
    ) -> tuple[Training, Background]:
        empty, none = np.zeros((1, 28, 28, 1), np.float32), np.zeros(1, np.int64)
        data = Dataset(name="fake", train_x=empty, train_y=none, test_x=empty, test_y=none)
        trainer: Any = FakeTrainer()
        display = Display(1, Console(quiet=True))
        background = Background(trainer, data, self.directory, lambda: None)
        codec = codec_for(self.args.codec, SIZE)
        model = GlobalModel(self.args.learning, trainer.get_vector(), codec)
        training = Training(
            self.args.rounds, model, driver, server, trainer, background, history, display, state
        )
        started = server.start_round

        def start_round(model: bytes, present: set[int]) -> Any:
            outputs = started(model, present)
            state.die("in round", server.round)
            return outputs

        server.start_round = start_round
        return training, background

    def die(self) -> None:
        """Cut all connections; the next server listens elsewhere."""
        old, self.network = self.network, Network()
        for index in self.keys:
            old.cut(index)
        self.changed.set()


async def live_through(args: Config, directory: Path, *deaths: tuple[str, int]) -> Any:
    """Run until training is over, through these deaths of the server."""
    world = World(args, directory)
    clients = [asyncio.create_task(world.client(index)) for index in world.keys]
    for number, (point, round) in enumerate(deaths):
        with pytest.raises(Killed):
            await world.serve(point, round, resume=number > 0)
        world.die()
    history, weights = await world.serve("", 0, resume=True)
    for index in world.network.server.connected:
        world.network.server.send(index, codec.encode(Finish("over")))
    await asyncio.wait_for(asyncio.gather(*clients), 30)
    return history, weights


def check(args: Config, directory: Path, history: History, weights: np.ndarray) -> list[int]:
    """Every round has one line and every sum was applied once; return the lost rounds."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, args.rounds.rounds + 1))
    assert [record.round for record in history.records] == [line["round"] for line in lines]
    counted = [tuple(line["contributors"]) for line in lines]
    assert np.allclose(weights, expected_weights(args, counted), atol=4e-5)
    assert all(line["abandoned"] in (None, INTERRUPTED) for line in lines)
    assert all(
        len(c) == args.session.num_clients for c, line in zip(counted, lines, strict=True) if c
    )
    return [line["round"] for line in lines if line["abandoned"]]


@pytest.mark.parametrize("point", POINTS)
def test_a_death_costs_at_most_the_round_in_flight(tmp_path: Path, point: str) -> None:
    args = flags(tmp_path, "--num_iterations", "5")  # all shares are needed in every round
    history, weights = asyncio.run(live_through(args, tmp_path, (point, 3)))
    lost = check(args, tmp_path, history, weights)
    # Once decryption has begun the sum is kept, and the next process ends the round.
    assert lost == ([3] if point in ("after start", "in round") else [])
    assert [record.attempts for record in history.records if record.round not in lost] == [
        2 if record.round == 3 and point in ("in decryption", "before finish") else 1
        for record in history.records
        if record.round not in lost
    ]


def test_a_sum_that_was_kept_over_a_restart_is_charged_once(tmp_path: Path) -> None:
    args = flags(tmp_path, "--num_iterations", "4")
    deaths = [("in decryption", 2), ("in decryption", 4)]
    history, weights = asyncio.run(live_through(args, tmp_path, *deaths))
    assert check(args, tmp_path, history, weights) == []
    assert charged(history.records) == 4


def test_death_after_death(tmp_path: Path) -> None:
    args = flags(tmp_path, "--num_iterations", "8")
    deaths = [("in round", 1), ("after start", 2), ("after finish", 4), ("in round", 6)]
    history, weights = asyncio.run(live_through(args, tmp_path, *deaths))
    assert check(args, tmp_path, history, weights) == [1, 2, 6]


def test_what_was_evaluated_beside_the_rounds_survives_a_death(tmp_path: Path) -> None:
    args = flags(tmp_path, "--num_iterations", "6")
    args = replace(args, rounds=replace(args.rounds, evaluate_every=None))
    history, weights = asyncio.run(live_through(args, tmp_path, ("in round", 3)))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if "contributors" in line]
    late = {line["round"]: line["loss"] for line in lines if "contributors" not in line}
    assert [line["round"] for line in rounds] == [1, 2, 3, 4, 5, 6] and late
    for line, record in zip(rounds, history.records, strict=True):
        assert record.loss == late.get(record.round, line["loss"])
    assert history.records[-1].loss == 1.0
    counted = [tuple(line["contributors"]) for line in rounds]
    assert np.allclose(weights, expected_weights(args, counted), atol=4e-5)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_an_optimizer_goes_on_with_its_averages(tmp_path: Path, kind: str) -> None:
    args = flags(tmp_path, "--num_iterations", "5", "--server_optimizer", kind)
    _, weights = asyncio.run(live_through(args, tmp_path, ("after finish", 3)))
    optimizer, expected = ServerOptimizer(kind, SIZE), np.zeros(SIZE, np.float32)
    for _ in range(5):
        expected = optimizer.step(
            expected, np.full(SIZE, 0.25, np.float32), args.learning.learning_rate
        )
    assert np.allclose(weights, expected, atol=1e-3)


def record(number: int, **other: Any) -> RoundRecord:
    fields = {"round": number, "contributors": (1, 2), "dropped": (3,), "accuracy": 0.5}
    zero: dict[str, Any] = {"seconds": 0.5, "attempts": 1, "saturated": 0}
    for name in ("upload_bytes_per_client", "download_bytes_per_client"):
        zero[name] = 0
    zero["decryption_bytes_per_decryptor"] = 0
    rest: dict[str, Any] = {"loss": 1.0, "train_loss": None, "train_accuracy": None}
    rest |= {"samples": None, "seconds_by_stage": {"train": 0.5}}
    return RoundRecord(**(fields | zero | rest | other))  # type: ignore[arg-type]


def history_of(directory: Path, *records: RoundRecord) -> History:
    history = History(directory)
    for item in records:
        history.append(item)
    return History(directory)


def test_a_line_is_read_as_it_was_written() -> None:
    found_out = record(3, groups=2, implausible=(LOST, LOST), excluded=(OUT,))
    for item in (record(1), record(2, abandoned="so", train_loss=0.25), found_out):
        assert read_record(item.to_json()) == item
    assert read_record(record(1, loss=float("inf")).to_json()).loss is None


FOUND_OUT = record(1, implausible=(LOST,), excluded=(OUT,)).to_json()
DAMAGED = [FOUND_OUT.replace(key, f"no_{key}") for key in ("client", "contributors", "reason")] + [
    FOUND_OUT.replace('"groups": 0', '"groups": "0"'),
    FOUND_OUT.replace('[{"client": 3', '[{"c": 3'),
]


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"round": 1}', "{", "\x00", *DAMAGED])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_record(line)


def test_what_was_evaluated_later_is_read_with_its_round(tmp_path: Path) -> None:
    history = history_of(tmp_path, record(1, accuracy=None, loss=None), record(2, loss=None))
    with history.path.open("a") as file:
        file.write(Evaluation(1, 0.75, 0.25).to_json() + "\n")
    restore_history(history, record(2))
    assert [item.loss for item in history.records] == [0.25, None]
    assert history.records[0].accuracy == 0.75
    with history.path.open("a") as file:
        file.write('{"round": 3, "accuracy": 0.5, "loss": 1.0}\n')
    with pytest.raises(StateError, match="is not what this session wrote"):
        restore_history(History(tmp_path), record(2))


def test_a_half_written_line_is_cut_and_a_missing_one_appended(tmp_path: Path) -> None:
    whole = record(1).to_json() + "\n"
    path = tmp_path / "metrics.jsonl"
    text = record(2).to_json()
    for end in range(0, len(text), 7):
        path.write_text(whole + text[:end])
        history = History(tmp_path)
        restore_history(history, record(2))
        assert history.records == [record(1), record(2)]
        assert path.read_text() == whole + text + "\n"


def test_a_history_of_something_else_is_refused(tmp_path: Path) -> None:
    history = history_of(tmp_path, record(1), record(2))
    before = history.path.read_bytes()
    for last in (None, record(1), record(4)):
        with pytest.raises(StateError, match="rounds where"):
            restore_history(history, last)
    with history.path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(StateError, match="is not what this session wrote"):
        restore_history(history, record(3))
    history.path.write_bytes(before + before)
    with pytest.raises(StateError, match="every round once"):
        restore_history(history, record(4))


def test_progress_of_another_round_than_was_started_is_refused(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "server", Ed25519PrivateKey.generate(), 0, bytes(32))
    state = ServerState(vault, SIZE)
    assert state.restore(History(tmp_path)) is None
    model = RoundModel(np.ones(SIZE, np.float32), PublicRange(2.0))
    state.starting(1)
    state.finished(model, record(1), b"averages")
    checkpoint = state.restore(History(tmp_path))
    assert checkpoint is not None
    assert (checkpoint.round, checkpoint.model.public.clip_range) == (1, 2.0)
    assert np.array_equal(checkpoint.model.weights, model.weights)
    assert checkpoint.averages == b"averages"
    with pytest.raises(StateError, match="progress cannot be used"):
        ServerState(vault, SIZE + 1).restore(History(tmp_path))
    state.finished(model, record(2))
    with pytest.raises(StateError, match="does not fit"):
        state.restore(History(tmp_path))
    vault.close()


def test_gathering_waits_for_all_who_may_come_back_until_the_deadline() -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    server = Server(simulation.parameters, simulation.roster)
    server.aggregator = Aggregator(simulation.session)
    gathering = Gathering(server, (1, 2, 3))
    ready = returning.announce(simulation.keys[2], simulation.identities[2])
    assert gathering.receive(2, codec.encode(ready)).mail
    gathering.lost(1)  # its old connection; it may come back
    assert gathering.waiting_for() == (1, 3)
    gathering.receive(1, codec.encode(Join(1, b"", b"", b"")))
    assert gathering.waiting_for() == (3,)
    gathering.deadline_passed()
    assert gathering.waiting_for() == ()
