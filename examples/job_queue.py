"""A job queue: each client lives for one message, and is bytes in a file in between.

Workers may run anywhere and die at any time. The state is stored before anything is sent, and the
store compares serial numbers: of two workers that woke the same client only one goes on.
"""

import fcntl
import os
import tempfile
from collections import deque
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path

import numpy as np

import mphe

CLIENTS, LENGTH, ROUNDS = 5, 1000, 3


def serial_of(state: bytes) -> int:
    """Return a state's serial number, 0 for that of a client that has not lived yet."""
    return mphe.serial_of(state) if state else 0


class Store:
    """One client's state in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes:
        """Return the state; nothing before the first swap."""
        return self._path.read_bytes() if self._path.exists() else b""

    def swap(self, old_serial: int, state: bytes) -> bool:
        """Replace the state of this serial number, in one step and on the disk; else False."""
        with open(self._path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if serial_of(self.load()) != old_serial:
                return False
            handle, name = tempfile.mkstemp(dir=self._path.parent)
            with open(handle, "wb") as file:
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
            return True


class Queue:
    """Jobs of all parties; the server is one long life, a client one for each job."""

    def __init__(self, directory: Path) -> None:
        self._parameters = mphe.SessionParameters(
            num_clients=CLIENTS, threshold=3, length=LENGTH, rounds=ROUNDS
        )
        self._identities = {i: mphe.Identity.generate() for i in range(1, CLIENTS + 1)}
        self._roster = {i: identity.public for i, identity in self._identities.items()}
        self._stores = {i: Store(directory / f"client-{i}") for i in self._roster}
        self._jobs: deque[tuple[int, int, bytes]] = deque()  # sender, receiver, bytes
        self._server = mphe.Server(self._parameters, self._roster)
        self.lives = 0

    def set_up(self) -> None:
        """Let all clients make the key together."""
        for index in self._roster:
            self._live(index, methodcaller("start"))
        self._work(set())

    def round(self, away: set[int]) -> None:
        """Run a round in which some clients answer nothing."""
        self._carry_out(0, self._server.start_round(b"model", present=self._roster))
        self._work(away)
        for index in away:
            self._carry_out(0, self._server.lost(index))
        self._work(away)

    def _live(self, index: int, act: Callable[[mphe.Client], mphe.Step]) -> None:
        """Make a client from its state, let it act once, store it, and only then send."""
        self.lives += 1
        state = self._stores[index].load()
        if state:
            client = mphe.Client.restore(state, self._identities[index])
        else:
            client = mphe.Client(index, self._parameters, self._identities[index], self._roster)
        step = act(client)
        if not self._stores[index].swap(serial_of(state), client.state):
            raise RuntimeError(f"another worker has moved client {index} on")
        self._carry_out(index, step)

    def _carry_out(self, party: int, step: mphe.Step) -> None:
        self._jobs.extend((party, receiver, data) for receiver, data in step.mail)
        for event in step.events:
            if isinstance(event, mphe.TrainOn):
                values = np.full(LENGTH, party)
                self._live(party, methodcaller("contribute", event.round, values))
            elif isinstance(event, mphe.Summed):
                exact = bool((event.total == sum(event.contributors)).all())
                print("round", event.round, "sum of", event.contributors, "exact:", exact)

    def _work(self, away: set[int]) -> None:
        while self._jobs:
            sender, receiver, data = self._jobs.popleft()
            if receiver == 0:
                self._carry_out(0, self._server.receive(sender, data))
            elif receiver not in away:
                self._live(receiver, methodcaller("receive", data))


def main(directory: Path) -> None:
    """Run the set-up and three rounds; client 5 is away in the second."""
    queue = Queue(directory)
    queue.set_up()
    for away in (set(), {5}, set()):
        queue.round(away)
    print(f"{queue.lives} lives of {CLIENTS} clients")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
