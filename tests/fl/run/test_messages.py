"""What crosses the wire besides the protocol: models and timings."""

import msgpack
import numpy as np
import pytest

from fl.config.configs import Config
from fl.config.resolve import parse_args
from fl.model.round_model import RoundModel
from fl.report.timings import Timings
from mphe.errors import EncodingError
from mphe.plan.plan import make_plan
from mphe.update import PublicRange
from mphe.wire.sizes import longest_of_client, longest_of_server


def flags(*more: str) -> Config:
    required = ["--num_peers", "4", "--server_address", "localhost:8080", "--robust", "True"]
    return parse_args([*required, *more])


def test_a_model_survives_the_wire() -> None:
    model = RoundModel(np.arange(5, dtype=np.float32), PublicRange(0.25))
    again = RoundModel.from_bytes(model.to_bytes(), 5)
    assert np.array_equal(again.weights, model.weights)
    assert again.public == model.public


@pytest.mark.parametrize(
    "data",
    [
        b"",
        RoundModel(np.zeros(4, np.float32), PublicRange(1.0)).to_bytes(),
        RoundModel(np.zeros(5, np.float32), PublicRange(1.0)).to_bytes() + b"x",
        RoundModel(np.full(5, np.nan, np.float32), PublicRange(1.0)).to_bytes(),
        RoundModel(np.zeros(5, np.float32), PublicRange(0.0)).to_bytes(),
        RoundModel(np.zeros(5, np.float32), PublicRange(float("inf"))).to_bytes(),
        RoundModel(np.zeros(5, np.float32), PublicRange(float("nan"))).to_bytes(),
        RoundModel(np.zeros(5, np.float32), PublicRange(1.0, version=2)).to_bytes(),
    ],
)
def test_a_wrong_model_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        RoundModel.from_bytes(data, 5)


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
def test_wrong_timings_count_as_none(data: bytes) -> None:
    assert Timings.from_bytes(data) == Timings()


def test_timings_survive_the_wire_and_are_bounded() -> None:
    assert Timings.from_bytes(Timings(1.5, 0.25).to_bytes()) == Timings(1.5, 0.25)
    assert Timings.from_bytes(msgpack.packb([float("inf"), -3.0])) == Timings(1e6, 0.0)
    assert Timings.from_bytes(msgpack.packb([float("nan"), 1.0])) == Timings(0.0, 1.0)


def test_the_plan_follows_the_flags() -> None:
    config = flags("--resiliency", "0.5", "--encryption", "direct")
    plan = make_plan(config.session.parameters(1000))
    assert plan.session.threshold == 2
    assert plan.session.encryption == "direct"
    assert plan.session.length == 1000
    assert longest_of_server(plan, 4 * 1000) > longest_of_client(plan, is_open=True)
