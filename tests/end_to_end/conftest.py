"""Fixtures of the tests with real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.parties import Federation, make_desk

MOST_PEERS = 8


@pytest.fixture(scope="session")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Identities and rosters, made once for each number of clients."""
    made: dict[int, Path] = {}

    def desk(peers: int) -> Path:
        if peers not in made:
            made[peers] = make_desk(tmp_path_factory.mktemp(f"desk{peers}"), peers)
        return made[peers]

    return desk


@pytest.fixture
def federation(desks: Callable[[int], Path], tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """A maker of federations, of which nothing is left after the test."""
    made: list[Federation] = []

    def make(peers: int = 4, pause: float = 0.05, **flags: str) -> Federation:
        words = {f"--{name}": text for name, text in flags.items()}
        made.append(Federation(desks(peers), tmp_path / f"out{len(made)}", peers, words, pause))
        return made[-1]

    yield make
    for one in made:
        one.stop()
