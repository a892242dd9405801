"""A whole run in one process: real server and client loops over the loopback transport."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fl.config.configs import Config
from fl.config.resolve import parse_args
from fl.data.load import Dataset, load_dataset
from fl.learning.build import make_learner
from fl.learning.global_model import GlobalModel
from fl.model.round_model import RoundModel
from fl.model.trainer import Trainer
from fl.privacy.privacy import Privacy, make_privacy
from fl.report.metrics import History
from fl.report.progress import Display
from fl.run.background import Background
from fl.run.client import ClientWork
from fl.run.rounds import Training
from fl.schemes.scheme import Agreement, Judge, Setting, codec_for, scheme_of
from mphe import Identity, Roster, Step
from mphe.net.loopback import LoopbackClient, Network
from mphe.net.tcp import Unreachable
from mphe.plan.plan import Plan, make_plan
from mphe.run.driver import Driver, Observer
from mphe.run.session import ClientSession, follow
from mphe.update import Counts
from mphe.wire import codec
from mphe.wire.messages import Finish
from tests.patience import flag, scaled

SIZE = 50


class FakeTrainer:
    """Weights without a model; its accuracy is how often it was evaluated, in thousandths."""

    has_classes = True

    def __init__(self) -> None:
        self.size = SIZE
        self._weights = np.zeros(SIZE, np.float32)
        self.evaluations = 0

    def get_vector(self) -> np.ndarray:
        return self._weights.copy()

    def set_vector(self, vector: np.ndarray) -> None:
        self._weights = vector.copy()

    def evaluate(self, _x: Any, _y: Any) -> tuple[float, float]:
        self.evaluations += 1
        return self.evaluations / 1000, 1.0

    def save(self, path: Path) -> None:
        path.write_bytes(self._weights.tobytes())


class FakeLearner:
    """Client i always finds the update i/10; it may be told to hang, to die or to misbehave."""

    private = False

    def __init__(self, args: Config, index: int, before: Callable[[int, int], None]) -> None:
        self.size = SIZE
        self._args = args
        self._index = index
        self._before = before
        # Some updates are longer than clip_norm, and tests want to see them whole.
        self._codec = codec_for(replace(args.codec, clip_norm=1e6), SIZE)

    def update(self, round: int, model: RoundModel) -> tuple[np.ndarray, Counts]:
        self._before(self._index, round)
        return np.full(SIZE, self._index / 10, np.float32), Counts(float(self._index))

    def encode(
        self, round: int, model: RoundModel, update: np.ndarray, counts: Counts
    ) -> np.ndarray:
        seed, index = self._args.learning.seed, self._index
        return self._codec.encode(
            update, model.public, seed=seed, index=index, round=round, counts=counts
        )

    def sends(self, round: int, counts: Counts) -> None:
        """Keep no books."""

    def counted(self, round: int, counted: bool) -> None:
        """Keep no books."""


def _nothing() -> Dataset:
    x, y = np.zeros((1, 28, 28, 1), np.float32), np.zeros(1, np.int64)
    return Dataset(name="fake", train_x=x, train_y=y, test_x=x, test_y=y)


@dataclass
class Real:
    """What a run trains: stand-ins, or real models on real data."""

    size: int = SIZE
    learners: dict[int, Any] = field(default_factory=dict)
    trainer: Any = field(default_factory=FakeTrainer)
    data: Dataset = field(default_factory=_nothing)

    @classmethod
    def of(cls, args: Config) -> "Real":
        """Load data and models as the flags say."""
        data = load_dataset(args.data.dataset, args.learning.seed)
        trainer = Trainer(args.learning.seed, args.learning.model, data)
        clients = range(1, args.session.num_clients + 1)
        learners = {index: make_learner(args, index, args.data.dataset) for index in clients}
        return cls(trainer.size, learners, trainer, data)


@dataclass
class Outcome:
    """What a run left behind."""

    history: History
    weights: np.ndarray
    driver: Driver
    client_errors: dict[int, BaseException] = field(default_factory=dict)


def flags(directory: Path, *more: str, peers: int = 4) -> Config:
    """Return parsed flags of a short run."""
    line = f"--num_peers {peers} --server_address localhost:8080 --robust True --clip_norm 3"
    rounds = (
        f"--num_iterations 3 --round_timeout {flag(20)} --evaluate_every 1 --output {directory}"
    )
    given = {word for word in more if word.startswith("--")}
    words = [*line.split(), *rounds.split()]
    pairs = [pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0] not in given]
    return parse_args([word for pair in pairs for word in pair] + list(more))


def privacy_of(config: Config, size: int, labels: np.ndarray | None) -> Privacy | None:
    """Return how a run of these flags is protected."""
    return make_privacy(config.privacy, config.codec, config.data, size, labels)


def plan_of(config: Config, size: int) -> Plan:
    """Return the plan of a run whose model has so many values."""
    return make_plan(config.session.parameters(codec_for(config.codec, size).payload_length))


def model_of(config: Config, real: Real) -> GlobalModel:
    """Return the server's model before its first round."""
    privacy = privacy_of(config, real.size, real.data.train_y)
    updates = codec_for(config.codec, real.size, privacy)
    return GlobalModel(config.learning, real.trainer.get_vector(), updates)


def agreement_of(
    config: Config, size: int, roster: Roster, judge: Judge | None = None
) -> Agreement:
    """Return the parties of a run whose model has so many values."""
    length = codec_for(config.codec, size).payload_length
    setting = Setting(config.session, length, size, roster, judge=judge)
    return scheme_of(config.codec.aggregation).agree(setting)


def run(
    args: Config,
    before: Callable[[int, int], None] = lambda index, round: None,
    meddle: Callable[[Network, int], None] = lambda network, round: None,
    reconnect: Sequence[int] = (),
    real: Real | None = None,
    away_seconds: float = 0.0,
) -> Outcome:
    """Run server and clients to the end.

    Args:
        args: flags of all parties.
        before: called in each client before it trains, with its index and the round.
        meddle: called on the server before each round, with the network and the round.
        reconnect: the clients that come back when their connection is cut.
        real: models and data instead of stand-ins.
        away_seconds: what it takes them to come back.
    """
    return asyncio.run(_run(args, before, meddle, reconnect, real or Real(), away_seconds))


async def _run(
    args: Config,
    before: Any,
    meddle: Any,
    reconnect: Sequence[int],
    real: "Real",
    away_seconds: float,
) -> Outcome:
    network = Network()
    identities = {i: Identity.generate() for i in range(1, args.session.num_clients + 1)}
    roster = Roster({i: identity.public for i, identity in identities.items()})
    model = model_of(args, real)
    agreement = agreement_of(args, real.size, roster, model.implausible)

    async def client(index: int) -> None:
        learner: Any = real.learners.get(index) or FakeLearner(args, index, before)
        transport: LoopbackClient = network.connect(index)
        dropout = args.rounds.dropout
        session = ClientSession(
            agreement.client(index, identities[index], None).party,
            transport,
            ClientWork(learner),
            leaves=lambda round: index in dropout.of(round),
        )
        session.start()

        async def connect() -> LoopbackClient:
            if index not in reconnect:
                raise Unreachable("the test says so")
            await asyncio.sleep(away_seconds)
            return network.connect(index)

        await follow(session, connect)

    clients = {index: asyncio.create_task(client(index)) for index in identities}
    try:
        outcome = await _serve(args, network, agreement, meddle, real, model)
    finally:
        everybody = asyncio.gather(*clients.values(), return_exceptions=True)
        done = await asyncio.wait_for(everybody, timeout=scaled(60))
    outcome.client_errors = {
        index: error
        for index, error in zip(clients, done, strict=True)
        if isinstance(error, BaseException)
    }
    return outcome


async def _serve(
    args: Config,
    network: Network,
    agreement: Agreement,
    meddle: Any,
    real: Real,
    model: GlobalModel | None = None,
) -> Outcome:
    display = Display(args.rounds.rounds, Console(quiet=True))
    driver = Driver(network.server, display)
    directory = Path(args.party.output or "")
    history = History(directory)
    party: Any = agreement.server()
    await driver.run(party, Step(), scaled(20), Observer())
    privacy = privacy_of(args, real.size, real.data.train_y)
    model = model or model_of(args, real)
    background = Background(real.trainer, real.data, directory, lambda: None)
    training = Training(
        args.rounds,
        model,
        driver,
        party,
        real.trainer,
        background,
        history,
        display,
        privacy=privacy,
    )
    started = party.start_round

    def start_round(model: bytes, present: set[int]) -> Any:
        meddle(network, party.round + 1)
        return started(model, present & set(network.server.connected))

    party.start_round = start_round
    try:
        await training.run()
    finally:
        background.close(*training.finished)
        for peer in network.server.connected:
            network.server.send(peer, codec.encode(Finish("over")))
    return Outcome(history, training.finished[1], driver)


def expected_weights(args: Config, contributors: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the weights after rounds with these contributors, from plain arithmetic."""
    step = sum(np.mean([index / 10 for index in counted]) for counted in contributors if counted)
    return np.full(SIZE, -args.learning.learning_rate * step)


def server_gone(outcome: Outcome) -> set[int]:
    """Return the clients that lost the server."""
    return {i for i, error in outcome.client_errors.items() if isinstance(error, Unreachable)}
