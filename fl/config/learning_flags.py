"""Flags of learning: data split, model, algorithm, compression; and what they refuse."""

import dataclasses

from fl.config.configs import OPTIMIZERS, WEIGHTINGS
from fl.config.flags import UsageError, flag, model_name, one_of, real, true_or_false, whole_number
from fl.config.partition import Partition
from fl.config.schedule import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningFlags:
    """The flags that say what is learnt and how; `Args` adds the others and checks all."""

    partition: str = flag(
        lambda text: str(Partition.parse(text)),
        "how clients share a data set: iid; dirichlet:ALPHA, labels skewed the more the smaller "
        "ALPHA; shards:K, K pieces of one label order each",
        "iid",
    )
    model: str = flag(
        model_name, "cnn: for 28 x 28 images; FILE.py:FUNCTION returns any Keras 3 model", "cnn"
    )
    learning_rate_schedule: str = flag(
        lambda text: str(Schedule.parse(text)),
        "constant; cosine: down to 0 over all rounds; step:N:F: times F every N rounds",
        "constant",
    )
    server_optimizer: str = flag(
        one_of(OPTIMIZERS), "what turns the mean update into a step of the model", "sgd"
    )
    local_steps: int = flag(
        whole_number,
        "steps a client takes on its own before it sends the sum of their gradients; 1 is FedSGD, "
        "more is FedAvg (raise --clip_norm with it)",
        1,
    )
    local_learning_rate: float | None = flag(
        real, "rate of these steps; default: the server's, which is FedAvg as published", None
    )
    weighting: str = flag(
        one_of(WEIGHTINGS),
        "uniform: every client counts the same; samples: by its number of samples, so the sum is "
        "nearly the update of a client that is much larger than the others",
        "uniform",
    )
    compression_rate: float = flag(
        real,
        "fraction of the model's values that a client sends in a round; the others wait for "
        "their turn",
        1.0,
    )
    rotation: bool = flag(
        true_or_false,
        "True: spread an update evenly over its values before it is rounded, which helps with few "
        "--value_bits; not used with --aggregation plain",
        False,
    )
    simulate_dropout: float = flag(
        real,
        "for experiments: in every round this part of the clients, drawn by --seed, loses its "
        "connection after it got the model, and is back for the next round",
        0.0,
    )


def check_learning(args: LearningFlags) -> None:
    """Refuse values that cannot work, each in one line; UsageError."""
    if not 1e-4 <= args.compression_rate <= 1:
        raise UsageError(
            f"--compression_rate must be between 0.0001 and 1, not {args.compression_rate:g}"
        )
    if not 1 <= args.local_steps <= 10_000:
        raise UsageError(f"--local_steps must be between 1 and 10000, not {args.local_steps}")
    rate = args.local_learning_rate
    if rate is not None and rate <= 0:
        raise UsageError(f"--local_learning_rate must be above 0, not {rate:g}")
    if rate is not None and args.local_steps == 1:
        raise UsageError("--local_learning_rate has no use without --local_steps above 1")


def check_kept(args: LearningFlags, state_dir: str | None) -> None:
    """Refuse a state directory for what a restart would lose; UsageError."""
    if state_dir and args.compression_rate < 1:
        raise UsageError(
            f"--state_dir does not keep what --compression_rate {args.compression_rate:g} leaves "
            "with the clients from round to round: leave out the one or the other"
        )
