"""What crosses the wire besides the protocol: models and notes."""

import msgpack
import numpy as np
import pytest

from fl.config.arguments import Args, parse_args
from fl.schemes.session import Model, Note, max_frame, plan_for
from mphe.errors import EncodingError
from mphe.update import PublicRange


def flags(*more: str) -> Args:
    required = ["--num_peers", "4", "--server_address", "localhost:8080", "--robust", "True"]
    return parse_args([*required, *more])


def test_a_model_survives_the_wire() -> None:
    model = Model(np.arange(5, dtype=np.float32), PublicRange(0.25))
    again = Model.from_bytes(model.to_bytes(), 5)
    assert np.array_equal(again.weights, model.weights)
    assert again.public == model.public


@pytest.mark.parametrize(
    "data",
    [
        b"",
        Model(np.zeros(4, np.float32), PublicRange(1.0)).to_bytes(),
        Model(np.zeros(5, np.float32), PublicRange(1.0)).to_bytes() + b"x",
        Model(np.full(5, np.nan, np.float32), PublicRange(1.0)).to_bytes(),
        Model(np.zeros(5, np.float32), PublicRange(0.0)).to_bytes(),
        Model(np.zeros(5, np.float32), PublicRange(float("inf"))).to_bytes(),
        Model(np.zeros(5, np.float32), PublicRange(float("nan"))).to_bytes(),
        Model(np.zeros(5, np.float32), PublicRange(1.0, version=2)).to_bytes(),
    ],
)
def test_a_wrong_model_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Model.from_bytes(data, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 9,
        msgpack.packb([1.0]),
        msgpack.packb([1.0, "x"]),
        msgpack.packb({"a": 1}),
        msgpack.packb(7),
        msgpack.packb([1.0, None]),
    ],
)
def test_a_wrong_note_counts_as_empty(data: bytes) -> None:
    assert Note.from_bytes(data) == Note()


def test_a_note_survives_the_wire_and_is_bounded() -> None:
    assert Note.from_bytes(Note(1.5, 0.25).to_bytes()) == Note(1.5, 0.25)
    assert Note.from_bytes(msgpack.packb([float("inf"), -3.0])) == Note(1e6, 0.0)
    assert Note.from_bytes(msgpack.packb([float("nan"), 1.0])) == Note(0.0, 1.0)


def test_the_plan_follows_the_flags() -> None:
    plan = plan_for(flags("--resiliency", "0.5", "--encryption", "direct"), 1000)
    assert plan.session.threshold == 2
    assert plan.session.encryption == "direct"
    assert plan.session.length == 1000
    assert max_frame(plan, 1000) > plan.upload_bytes
