"""What the flags of a run come to, in parts: everything takes only the parts that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl.config.dropout import Dropout
from fl.config.flags import split_address
from fl.config.partition import Partition
from fl.config.schedule import Schedule

if TYPE_CHECKING:
    from mphe import SessionParameters

# As mphe.SessionParameters has them; that loads NumPy, and what is wrong on its own is said before.
ENCRYPTIONS = ("hybrid", "direct")
OPTIMIZERS = ("sgd", "momentum", "adam")
WEIGHTINGS = ("uniform", "samples")
UNITS = ("sample", "client")
ROLES = ("server", "client")


@dataclass(frozen=True)
class SessionConfig:
    """SessionParameters but for the length of an update, which the model decides."""

    num_clients: int
    threshold: int
    rounds: int
    robust: bool
    encryption: str
    value_bits: int
    decryptors: int
    min_contributors: int
    max_attempts: int
    verified: bool
    max_corrupt: int
    verify_clients: bool

    def parameters(self, length: int) -> SessionParameters:
        """Return the parameters for contributions of `length` values."""
        from mphe import SessionParameters

        return SessionParameters(length=length, **vars(self))


@dataclass(frozen=True)
class CodecConfig:
    """How an update becomes what is summed.

    Attributes:
        aggregation: name of the scheme in `fl.config.schemes`.
        value_bits: of a quantised value.
        clip_norm: L2 norm of an update.
        compression_rate: part of the values that is sent in a round.
        rotation: whether an update is spread evenly before it is rounded.
        weighted: whether updates weigh as much as their client has samples.
    """

    aggregation: str
    value_bits: int
    clip_norm: float
    compression_rate: float
    rotation: bool
    weighted: bool


@dataclass(frozen=True)
class LearningConfig:
    """What is learnt from the data, by clients and the server.

    Attributes:
        model: cnn, or FILE.py:FUNCTION.
        rounds: of training.
        seed: public, of model and batches.
        learning_rate: of the server's step on the mean update.
        schedule: factor on the rates over the rounds.
        server_optimizer: one of OPTIMIZERS.
        local_steps: of a client in a round.
        local_rate: of these steps.
        batch_size: samples of a client's step.
        clip_norm: L2 norm of an update.
        weighted: whether updates weigh as much as their client has samples.
    """

    model: str
    rounds: int
    seed: int
    learning_rate: float
    schedule: Schedule
    server_optimizer: str
    local_steps: int
    local_rate: float
    batch_size: int
    clip_norm: float
    weighted: bool


@dataclass(frozen=True)
class DataConfig:
    """Which data there are, and how a program that has all of them shares them out."""

    dataset: str
    partition: Partition
    num_clients: int
    seed: int


@dataclass(frozen=True)
class PrivacyConfig:
    """What differential privacy is asked for.

    Attributes:
        epsilon, delta: of the whole run.
        unit: sample or client.
        colluding: contributors who may tell others their own noise.
        noise_multiplier: None asks for the smallest that lasts for all rounds.
        sampling_rate: None asks for that of the client with the fewest samples.
        min_contributors: fewest updates in a sum.
        num_clients: of the run.
        rounds: of the run.
        batch_size: samples of a client's batch, on average.
    """

    epsilon: float
    delta: float
    unit: str
    colluding: int
    noise_multiplier: float | None
    sampling_rate: float | None
    min_contributors: int
    num_clients: int
    rounds: int
    batch_size: int


@dataclass(frozen=True)
class RoundsConfig:
    """How the server plays its rounds.

    Attributes:
        num_clients: that may take part.
        rounds: of training.
        timeout: most seconds to wait in one step.
        max_failed: rounds in a row that may be abandoned.
        evaluate_every: rounds after which the model is evaluated; None: beside them, and the last.
        dropout: who leaves which round on purpose.
    """

    num_clients: int
    rounds: int
    timeout: float
    max_failed: int
    evaluate_every: int | None
    dropout: Dropout


@dataclass(frozen=True)
class PartyConfig:
    """Where and how a party runs: nothing of it changes what is learnt or encrypted.

    Attributes:
        num_clients: parties beside the server.
        server_address: host:port, with brackets around an IPv6 host.
        tls: whether connections are encrypted.
        role: server or client, where no launcher says which; None under one.
        roster: file with everybody's certificates; None under a launcher.
        identity: directory of this party's key; None under a launcher.
        output: the server's directory for results; None chooses one.
        state_dir: of what a restart needs; None keeps nothing.
        resume: whether to go on with the session in state_dir.
        quiet: whether only warnings and the summary are shown.
        crypto_threads: for the blocks of an update.
    """

    num_clients: int
    server_address: str
    tls: bool
    role: str | None
    roster: str | None
    identity: str | None
    output: str | None
    state_dir: str | None
    resume: bool
    quiet: bool
    crypto_threads: int

    @property
    def host(self) -> str:
        """Host part of server_address, without brackets."""
        return split_address(self.server_address)[0]

    @property
    def port(self) -> int:
        """Port part of server_address."""
        return split_address(self.server_address)[1]


@dataclass(frozen=True)
class Config:
    """All parts of a run, for those that put a party together.

    Attributes:
        session: what is agreed on about encryption.
        codec: how updates travel.
        learning: what is learnt.
        data: from which data.
        privacy: None without differential privacy.
        rounds: how the server plays them.
        party: where and how this one runs.
        flags: every flag and its value, defaults filled in, for config.json and --resume.
        warnings: lines that the user should see before the run starts.
    """

    session: SessionConfig
    codec: CodecConfig
    learning: LearningConfig
    data: DataConfig
    privacy: PrivacyConfig | None
    rounds: RoundsConfig
    party: PartyConfig
    flags: Mapping[str, object]
    warnings: tuple[str, ...]
