"""Which codec a run's flags choose, and that a learner and the global model undo each other."""

from pathlib import Path

import numpy as np
import pytest

from fl.learning.build import make_learner
from fl.learning.global_model import GlobalModel
from fl.model.round_model import RoundModel
from fl.schemes.plain_codec import PlainCodec
from fl.schemes.scheme import codec_for
from mphe.update import PrivateUpdateCodec, PublicRange, UpdateCodec
from mphe.update.quantise import payload_length
from mphe.update.rotation import padded_length
from tests.fl.federation import flags, privacy_of
from tests.fl.private import private_flags


@pytest.mark.parametrize("more", [[], ["--compression_rate", "0.5"]])
@pytest.mark.parametrize("way", ["--rotation True", "--rotation False", "--aggregation plain"])
def test_client_and_server_undo_each_other(tmp_path: Path, way: str, more: list[str]) -> None:
    words = [*way.split(), "--model", "examples/logistic.py:model", *more]
    args = flags(tmp_path, *words, "--dataset", "mnist5k")
    learner = make_learner(args, 1, "mnist5k")
    start = np.zeros(learner.size, np.float32)
    model = GlobalModel(args.learning, start, codec_for(args.codec, learner.size))
    update, counts = learner.update(1, RoundModel(start, PublicRange(3.0)))
    values = learner.encode(1, model.sent(), update, counts)
    assert values.size == learner.codec.payload_length
    mean = model.step(1, values, 1)
    left = learner.codec.unsent(update, seed=args.learning.seed, round=1)
    sent = update if left is None else update - left
    assert np.allclose(mean.update, sent, atol=1e-3)
    assert np.linalg.norm(mean.update) == pytest.approx(np.linalg.norm(sent), rel=1e-3)
    assert mean.loss == pytest.approx(counts.loss, abs=1e-3)


def test_plain_updates_are_not_rotated(tmp_path: Path) -> None:
    args = flags(tmp_path, "--rotation", "True", "--aggregation", "plain")
    codec = codec_for(args.codec, 3)
    assert isinstance(codec, PlainCodec)
    public = codec.first_public()
    sent = codec.encode(np.array([1.0, 2.0, 2.0]), public, seed=0, index=1, round=1)
    assert sent[:3].tolist() == [1.0, 2.0, 2.0]
    assert codec.decode(sent, 1, public).update.tolist() == [1.0, 2.0, 2.0]
    assert codec.next_public(public, codec.decode(sent, 1, public)) == public


def test_the_payload_counts_the_padding(tmp_path: Path) -> None:
    rotated = codec_for(flags(tmp_path, "--rotation", "True").codec, 199_658)
    assert rotated.payload_length == payload_length(padded_length(199_658), 16)
    assert codec_for(flags(tmp_path).codec, 199_658).payload_length == payload_length(199_658, 16)


@pytest.mark.parametrize("unit", ["sample", "client"])
def test_private_runs_get_noise_for_what_their_unit_changes(tmp_path: Path, unit: str) -> None:
    args = private_flags(tmp_path, "--dp_unit", unit, "--batch_size_per_worker", "25")
    privacy = privacy_of(args, 1000, np.arange(400) % 10)
    codec = codec_for(args.codec, 1000, privacy)
    assert privacy is not None and isinstance(codec, PrivateUpdateCodec)
    assert codec.scale == privacy.scale
    assert codec.scale.sensitivity == args.codec.clip_norm / (25 if unit == "sample" else 1)
    assert isinstance(codec_for(flags(tmp_path).codec, 1000), UpdateCodec)
