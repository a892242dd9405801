"""Puts a client's learner together: its part of the data, the model, and how updates travel."""

from fl.config.configs import Config
from fl.data.load import load_dataset
from fl.data.partition import client_part
from fl.learning.learner import Learner
from fl.learning.private_learner import PrivateLearner
from fl.model.trainer import Trainer
from fl.privacy.privacy import make_privacy
from fl.schemes.scheme import codec_for
from mphe import Hedge, RandomSource, System


def make_learner(
    config: Config,
    index: int,
    dataset: str,
    own_data: bool = False,
    system: System | None = None,
) -> Learner:
    """Load a client's data and build its model.

    Args:
        config: of the run.
        index: of the client.
        dataset: its name.
        own_data: whether all of it is this client's own; else its part is.
        system: of noise and batches, by default the operating system; a known one is for tests.

    Raises:
        DatasetError: the data cannot be had, or not be split like that.
        PrivacyError: they cannot be protected as the flags promise.
    """
    learning, split = config.learning, config.data
    data = load_dataset(dataset, learning.seed)
    samples = data.train_x, data.train_y
    if not own_data:
        # Copies of its own samples: the rest of the data set is forgotten.
        samples = client_part(data, index, split)
    trainer = Trainer(learning.seed, learning.model, data)
    labels = None if own_data else data.train_y
    privacy = make_privacy(config.privacy, config.codec, split, trainer.size, labels)
    if privacy is None:
        codec = codec_for(config.codec, trainer.size)
        return Learner(learning, index, samples, trainer, codec)
    system = system or System()
    secret = RandomSource.from_system(system)
    codec = codec_for(config.codec, trainer.size, privacy, Hedge.fresh(system))
    return PrivateLearner(learning, index, samples, trainer, codec, privacy, secret)
