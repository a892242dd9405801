"""Processes for test_floods: a server, its honest clients, and clients that do their worst.

    python -m tests.end_to_end.flooders server|honest|hostile DIRECTORY JSON

All of them are real: `mphe.run.serve` and `join` over TCP and TLS. The hostile ones took part in
the set-up as honest clients, whose state they hold; then they write what they like, at a fixed
rate.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import mphe
import mphe.run.deadlines
from mphe import run
from mphe.run.store import ClientStore
from mphe.run.vault import Vault
from mphe.wire import codec
from mphe.wire.messages import Contribution

HOST = "127.0.0.1"
HONEST_ROUNDS = 2
"""After so many rounds the hostile clients leave, and come back as what they are."""
PATTERNS = ("bytes", "returns", "storm", "large")
RATES = {"bytes": 250_000, "returns": 100_000, "storm": 50_000, "large": 2_000_000}
"""Bytes a second of each hostile client."""
HANDSHAKE_BYTES = 2_000
SLACK = 1.0
"""Seconds; who stays away costs a deadline now and then, which says nothing about floods."""


@dataclass(frozen=True)
class Scene:
    """What all processes agree on."""

    port: int
    clients: int
    threshold: int
    length: int
    hostile: int
    pattern: str

    @property
    def parameters(self) -> mphe.SessionParameters:
        return mphe.SessionParameters(
            num_clients=self.clients, threshold=self.threshold, length=self.length, rounds=2000
        )

    @property
    def attackers(self) -> range:
        """The last clients."""
        return range(self.clients - self.hostile + 1, self.clients + 1)

    def text(self) -> str:
        return json.dumps(asdict(self))


def write_credentials(directory: Path, clients: int) -> None:
    """Make everybody's key and certificate."""
    for index in range(clients + 1):
        own = run.new_credentials(f"party {index}")
        (directory / f"{index}.key").write_bytes(own.private_key.private_bytes_raw())
        (directory / f"{index}.der").write_bytes(own.certificate)


def parties(directory: Path, scene: Scene, index: int) -> run.Parties:
    certificates = {i: (directory / f"{i}.der").read_bytes() for i in range(scene.clients + 1)}
    key = Ed25519PrivateKey.from_private_bytes((directory / f"{index}.key").read_bytes())
    return run.Parties(run.Credentials(key, certificates[index]), certificates)


def tell(**what: object) -> None:
    """Say a line to whoever started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# -- the server ------------------------------------------------------------------------------------


def peak_memory() -> int:
    """Return the largest resident size (bytes) since this was asked last."""
    peak = 0
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                peak = 1024 * int(line.split()[1])
    Path("/proc/self/clear_refs").write_text("5")
    return peak


class Counting:
    """Counts what people would have to read."""

    def __init__(self) -> None:
        self.lines = 0

    def say(self, line: str) -> None:
        self.lines += 1

    def warn(self, line: str) -> None:
        self.lines += 1
        if self.lines < 50:
            sys.stderr.write(line + "\n")


async def server(directory: Path, scene: Scene) -> None:
    reporter, stopped = Counting(), threading.Event()

    def wait_for_word() -> None:
        sys.stdin.readline()
        stopped.set()

    threading.Thread(target=wait_for_word, daemon=True).start()
    last = [time.perf_counter(), time.process_time()]
    model = os.urandom(4 * scene.length)

    def then(outcome: mphe.Summed | mphe.Abandoned) -> bytes | None:
        now = [time.perf_counter(), time.process_time()]
        tell(
            round=outcome.round,
            summed=isinstance(outcome, mphe.Summed),
            contributors=list(outcome.contributors),
            wall=now[0] - last[0],
            cpu=now[1] - last[1],
            memory=peak_memory(),
            lines=reporter.lines,
            reason=getattr(outcome, "reason", ""),
        )
        last[:] = now
        return None if stopped.is_set() else model

    await run.serve(
        HOST,
        scene.port,
        scene.parameters,
        parties(directory, scene, 0),
        model,
        then,
        setup_timeout=120,
        round_timeout=30,
        reporter=reporter,
    )
    tell(over=True, lines=reporter.lines)


# -- honest clients --------------------------------------------------------------------------------


async def honest(directory: Path, scene: Scene) -> None:
    async def one(index: int) -> None:
        hostile = index in scene.attackers
        rounds = run.join(
            HOST,
            scene.port,
            index,
            scene.parameters,
            parties(directory, scene, index),
            state_dir=directory / f"state-{index}" if hostile else None,
            connect_timeout=120,
        )
        async for begun in rounds:
            if hostile and begun.number > HONEST_ROUNDS:
                await rounds.aclose()  # type: ignore[attr-defined]
                tell(turned=index)
                return
            begun.contribute(np.full(scene.length, index))

    await asyncio.gather(*(one(index) for index in range(1, scene.clients + 1)))


# -- hostile clients -------------------------------------------------------------------------------


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def writings(directory: Path, scene: Scene, index: int) -> Iterator[bytes]:
    """Yield what a hostile client writes, for ever."""
    own = parties(directory, scene, index)
    plan = mphe.Client(index, scene.parameters, own.identity, own.roster).plan
    vault = Vault(directory / f"state-{index}", own.own.private_key, index, plan.digest)
    client = ClientStore(vault).restore(plan, own.identity, own.roster)
    assert client is not None
    (_, ready), *_ = client.reconnected().mail
    transcript = client.setup.keys.transcript  # type: ignore[union-attr]
    if scene.pattern == "bytes":
        return itertools.repeat(200 * b"\0\0\0\1\0")
    if scene.pattern == "returns":
        return itertools.repeat(10 * frame(ready))
    old = Contribution(1, b"", os.urandom(plan.upload_bytes), b"", b"", transcript=transcript)
    wrong = [old, replace(old, round=10**6), replace(old, round=HONEST_ROUNDS + 1)]
    return itertools.cycle([frame(codec.encode(message)) for message in wrong])


class Attacker:
    """One hostile client, on its own connection, whichever way it is told to behave."""

    def __init__(self, directory: Path, scene: Scene, index: int) -> None:
        self.mode = "idle"
        self._scene = scene
        self._index = index
        self._context: ssl.SSLContext = parties(directory, scene, index).client_context()
        self._rate = RATES[scene.pattern]
        self.sent = self.connections = 0
        self._writings = writings(directory, scene, index)

    async def play(self) -> None:
        while True:
            with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError):
                await self._connection()
            await asyncio.sleep(0.02)
            await self._pay(HANDSHAKE_BYTES)

    async def _connection(self) -> None:
        mode = self.mode
        self.connections += mode == "flood"
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(
                HOST, self._scene.port, ssl=self._context
            )
        try:
            writer.write(frame(self._index.to_bytes(4, "big")))
            async with asyncio.timeout(30):
                await reader.readexactly(8)
            if mode == "idle":
                await self._idle(reader)
            elif self._scene.pattern != "storm":
                await self._flood(reader, writer)
        finally:
            writer.transport.abort()

    async def _idle(self, reader: asyncio.StreamReader) -> None:
        while self.mode == "idle":
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    if not await reader.read(1 << 16):
                        await asyncio.sleep(1)
                        return

    async def _flood(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        drain = asyncio.create_task(_discard(reader))
        try:
            while self.mode == "flood" and not drain.done():
                data = next(self._writings)
                for start in range(0, len(data), 1 << 14):
                    piece = data[start : start + (1 << 14)]
                    writer.write(piece)
                    await writer.drain()
                    self.sent += len(piece)
                    await self._pay(len(piece))
        finally:
            drain.cancel()

    async def _pay(self, count: float) -> None:
        await asyncio.sleep(count / self._rate)


async def _discard(reader: asyncio.StreamReader) -> None:
    with suppress(OSError, ssl.SSLError):
        while await reader.read(1 << 18):
            pass


async def hostile(directory: Path, scene: Scene) -> None:
    attackers = [Attacker(directory, scene, index) for index in scene.attackers]
    tasks = [asyncio.create_task(attacker.play()) for attacker in attackers]
    tell(ready=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "stop":
            break
        for attacker in attackers:
            attacker.mode = line.strip()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tell(
        sent=sum(attacker.sent for attacker in attackers),
        connections=sum(attacker.connections for attacker in attackers),
    )


def main() -> None:
    role, directory, text = sys.argv[1:]
    mphe.run.deadlines.SLACK_SECONDS = SLACK
    scene = Scene(**json.loads(text))
    asyncio.run(
        {"server": server, "honest": honest, "hostile": hostile}[role](Path(directory), scene)
    )


if __name__ == "__main__":
    main()
