"""Which client owns which samples: disjoint, complete, seeded, and nobody empty."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.configs import DataConfig
from fl.config.partition import Partition
from fl.data.load import Dataset, DatasetError
from mphe.update import Stream, generator

Indices = NDArray[np.int64]
SHOWN_CLIENTS = 12
SHOWN_LABELS = 20


def split(partition: Partition, labels: NDArray[Any], clients: int, seed: int) -> list[Indices]:
    """Return the indices of every client's samples; together they are all, each once.

    Args:
        labels: (n,) whole numbers; with iid anything of length n.
        clients: how many parts.
        seed: the same seed gives the same parts.

    Raises:
        DatasetError: too few samples, or no labels to split by.
    """
    samples = len(labels)
    pieces_needed = clients * max(1, partition.shards)
    if samples < pieces_needed:
        raise DatasetError(
            f"{samples} samples for {clients} clients with --partition {partition}: too few, so "
            "use fewer clients or more data"
        )
    random = generator(Stream.PARTITION, seed)
    if partition.kind == "iid":
        return list(np.array_split(random.permutation(samples), clients))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"--partition {partition} needs one whole number per sample as its label: use iid"
        )
    if partition.kind == "shards":
        return _by_shards(partition, labels, clients, random)
    return _by_dirichlet(partition, labels, clients, random)


def _by_shards(
    partition: Partition, labels: NDArray[Any], clients: int, random: np.random.Generator
) -> list[Indices]:
    """Deal pieces of the samples in label order (McMahan et al., arXiv 1602.05629)."""
    shuffled = random.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(order, clients * partition.shards)
    dealt = random.permutation(len(pieces)).reshape(clients, partition.shards)
    return [np.concatenate([pieces[piece] for piece in mine]) for mine in dealt]


def _by_dirichlet(
    partition: Partition, labels: NDArray[Any], clients: int, random: np.random.Generator
) -> list[Indices]:
    """Share each label by proportions from Dir(alpha) (Hsu et al., arXiv 1909.06335)."""
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(random.dirichlet(np.full(clients, partition.alpha)))[:-1]
        cuts = np.rint(np.nan_to_num(ends) * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    parted = [random.permutation(np.concatenate(part)) for part in parts]
    for index, mine in enumerate(parted):
        if not len(mine):
            # An empty client could not take part at all: the largest one gives a sample.
            largest = max(range(clients), key=lambda other: len(parted[other]))
            parted[index], parted[largest] = parted[largest][:1], parted[largest][1:]
    return parted


def describe(labels: NDArray[Any], split: Sequence[Indices]) -> list[dict[str, Any]]:
    """Return for each client its index, number of samples, and how many of each label.

    `labels` is None in each entry where labels are not single whole numbers.
    """
    countable = labels.ndim == 1 and labels.dtype.kind in "iu"
    described = []
    for index, mine in enumerate(split, start=1):
        named = None
        if countable:
            found, counts = np.unique(labels[mine], return_counts=True)
            named = {str(label): int(n) for label, n in zip(found, counts, strict=True)}
        described.append({"client": index, "samples": len(mine), "labels": named})
    return described


def lines(described: Sequence[dict[str, Any]], partition: Partition) -> list[str]:
    """Return what a person should see of a split; long ones are cut short."""
    sizes = [entry["samples"] for entry in described]
    shown = [
        f"{sum(sizes)} training samples for {len(sizes)} clients ({partition}), "
        f"{min(sizes)} to {max(sizes)} each"
    ]
    for entry in described[:SHOWN_CLIENTS]:
        labels = entry["labels"] or {}
        counts = ", ".join(f"{label}: {count}" for label, count in labels.items())
        if labels and len(labels) > SHOWN_LABELS:
            counts = f"{len(labels)} labels"
        shown.append(
            f"  client {entry['client']}: {entry['samples']}" + (f" ({counts})" * bool(counts))
        )
    if len(described) > SHOWN_CLIENTS:
        shown.append(f"  and {len(described) - SHOWN_CLIENTS} more in partition.json")
    return shown


def save(directory: Path, described: Sequence[dict[str, Any]], partition: Partition) -> None:
    """Write partition.json: how, and what each client got."""
    content = {"partition": str(partition), "clients": list(described)}
    text = json.dumps(content, indent=1)
    (directory / "partition.json").write_text(text + "\n", encoding="utf-8")


def client_part(
    dataset: Dataset, index: int, config: DataConfig
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a copy of client `index`'s own training data, 1 <= index <= num_clients.

    Raises DatasetError when the data cannot be split like that.
    """
    clients = config.num_clients
    if not 1 <= index <= clients:
        raise ValueError(f"client index {index} is not between 1 and {clients}")
    mine = split(config.partition, dataset.train_y, clients, config.seed)[index - 1]
    return dataset.train_x[mine], dataset.train_y[mine]


def batch(
    x: NDArray[Any],
    y: NDArray[Any],
    round: int,
    batch_size: int,
    seed: int,
    index: int,
    step: int = 0,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return client `index`'s batch of one step of a round: a seeded sample without replacement.

    The whole part when batch_size is larger. The same arguments give the same batch.
    """
    random = generator(Stream.BATCH, seed, index, round, *([step] if step else []))
    chosen = random.choice(len(y), min(batch_size, len(y)), replace=False)
    return x[chosen], y[chosen]
