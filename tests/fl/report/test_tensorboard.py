"""TensorBoard events, read back by TensorBoard's own reader, which checks every checksum."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from fl.report.metrics import STAGES, Evaluation, History
from fl.report.tensorboard import Events
from tests.fl.records import LOST, FullDisk, record


def read(path: Path) -> Iterator[Event]:
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except OutOfRangeError:
            return
        yield Event.FromString(reader.record())


def scalars(event: Event) -> dict[str, float]:
    return {value.tag: value.simple_value for value in event.summary.value}


def test_what_is_evaluated_later_is_at_its_round(tmp_path: Path) -> None:
    events = Events(tmp_path / "tensorboard")
    history = History(tmp_path, events)
    for number in (1, 2):
        history.append(record(number, accuracy=None, loss=None))
    history.evaluated(Evaluation(1, 0.5, 1.5))
    last = list(read(events.path))[-1]
    assert last.step == 1
    assert {value.tag for value in last.summary.value} == {"accuracy", "loss"}
    assert history.records[0].accuracy == 0.5 and history.records[1].accuracy is None
    assert json.loads(history.path.read_text().splitlines()[-1]) == {
        "round": 1,
        "accuracy": 0.5,
        "loss": 1.5,
    }
    with pytest.raises(ValueError, match="before it has ended"):
        history.evaluated(Evaluation(3, 0.5, 1.5))


def test_a_round_becomes_one_event(tmp_path: Path) -> None:
    events = Events(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    history = History(tmp_path, events)
    history.append(record(1))
    history.append(record(2, ()))
    first, one, two = read(events.path)
    assert first.file_version == "brain.Event:2"
    assert (one.step, two.step) == (1, 2) and one.wall_time <= two.wall_time
    told = scalars(one)
    assert {key: told[key] for key in ("accuracy", "loss", "train_loss", "train_accuracy")} == {
        "accuracy": pytest.approx(0.01),
        "loss": 2.0,
        "train_loss": 3.0,
        "train_accuracy": pytest.approx(0.005),
    }
    assert told["contributors"] == 4 and told["seconds/round"] == 0.5
    assert [told[f"seconds/{stage}"] for stage in STAGES] == pytest.approx(
        [place / 100 for place in range(1, 8)]
    )
    assert told["bytes/upload_per_client"] == 557_742
    assert told["bytes/download_per_client"] == 798_670
    # An abandoned round has no training figures, and says so by leaving them out.
    assert scalars(two)["contributors"] == 0
    assert "train_loss" not in scalars(two) and "epsilon" not in told


def test_groups_are_counted_where_there_are_some(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.append(record(1))
    events.append(record(2, groups=2, implausible=(LOST,)))
    _, one, two = read(events.path)
    assert "groups/implausible" not in scalars(one)
    assert scalars(two)["groups/implausible"] == 1


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.append(record(1, accuracy=None, train_accuracy=None))
    events.append(record(2, epsilon=0.5))
    _, one, two = read(events.path)
    assert scalars(two)["epsilon"] == 0.5
    assert {"loss", "train_loss"} <= set(scalars(one))
    assert not {"accuracy", "train_accuracy"} & set(scalars(one))


@pytest.mark.parametrize("error", [True, False])
def test_half_an_event_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: bool
) -> None:
    events = Events(tmp_path)
    events.append(record(1))
    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a, **k: FullDisk(opened(*a, **k), error))
        with pytest.raises(OSError, match="No space left"):
            events.append(record(2))
    events.append(record(3))
    assert [event.step for event in read(events.path)] == [0, 1, 3]


def test_a_failed_first_event_leaves_a_readable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events(tmp_path)
    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a, **k: FullDisk(opened(*a, **k), True))
        with pytest.raises(OSError, match="No space left"):
            events.append(record(1))
    events.append(record(2))
    assert [event.file_version for event in read(events.path)] == ["brain.Event:2", ""]
