"""Splits among clients: disjoint, complete, seeded, skewed as asked, nobody empty."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.config.partition import Partition
from fl.data.load import DatasetError
from fl.data.partition import describe, lines, save, split

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


def parts(text: str, clients: int = 8, seed: int = 0) -> list[Any]:
    return split(Partition.parse(text), LABELS, clients, seed)


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.1", "dirichlet:0.001", "shards:2"])
def test_every_sample_has_one_owner_and_every_client_a_sample(text: str) -> None:
    made = parts(text)
    assert sorted(np.concatenate(made)) == list(range(1000))
    assert min(map(len, made)) >= 1
    again, other = parts(text), parts(text, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(made, other, strict=True))


def test_a_small_alpha_skews_labels_more_than_a_large_one() -> None:
    def largest_share(text: str) -> float:
        shares = [np.bincount(LABELS[mine]).max() / len(mine) for mine in parts(text)]
        return float(np.mean(shares))

    assert largest_share("dirichlet:0.1") > 2 * largest_share("dirichlet:1000")


def test_shards_limit_the_labels_of_a_client() -> None:
    # A piece of 1000/16 samples in label order, of about 100 a label, meets two labels at most.
    assert max(len(np.unique(LABELS[mine])) for mine in parts("shards:2")) <= 4


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DatasetError, match="too few"):
        parts("shards:200")
    with pytest.raises(DatasetError, match="use iid"):
        split(Partition.parse("shards:2"), LABELS / 2, 4, 0)


def test_the_split_is_shown_and_saved(tmp_path: Path) -> None:
    described = describe(LABELS, parts("shards:2", clients=20))
    how = Partition.parse("shards:2")
    save(tmp_path, described, how)
    saved = json.loads((tmp_path / "partition.json").read_text())
    assert saved["partition"] == "shards:2"
    assert sum(entry["samples"] for entry in saved["clients"]) == 1000
    counts = np.sum([list(e["labels"].values()) for e in saved["clients"][:1]])
    assert counts == saved["clients"][0]["samples"]
    assert "1000 training samples for 20 clients" in lines(described, how)[0]
    assert "8 more in partition.json" in lines(described, how)[-1]
