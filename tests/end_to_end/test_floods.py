"""Clients that hold valid certificates flood the server; rounds go on at the same speed.

Attack: clients that took part in the set-up write one-byte frames, signs of life without end, or
large contributions of the wrong round, or connect and vanish in a storm, each at a fixed rate.
Claim: no round is lost, and beside as many idle connections of the same clients in the same run a
round takes at most twice as long and costs the server at most twice the processor time, and it
holds at most 1.2 times the memory. People read a few lines.
Weakened: with all frames of a read cut at once, as it was, a round takes minutes; each of the other
defences is taken out in tests/mphe/net and tests/mphe/run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.end_to_end.flooders import HONEST_ROUNDS, PATTERNS, Scene, write_credentials
from tests.patience import scaled
from tests.ports import free_port

LONGER, MORE_MEMORY = 2.0, 1.2
SPARE_MEMORY = 4 << 20
"""Bytes that a process may grow by for reasons of its own."""
ROUNDS = 9
MOST_SECONDS = 60.0
"""A phase lasts for so many rounds, and seconds, but no longer than this."""
MOST_LINES = 60

Record = dict[str, Any]


class Play:
    """The processes of one scene."""

    def __init__(self, directory: Path, scene: Scene, seconds: float) -> None:
        """Prepare for phases of so many seconds."""
        self._seconds = seconds
        self._directory = directory
        self._scene = scene
        self._processes: list[asyncio.subprocess.Process] = []

    async def _start(self, role: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.end_to_end.flooders",
            role,
            str(self._directory),
            self._scene.text(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    async def run(self, phases: list[str]) -> tuple[list[list[Record]], Record]:
        """Return the rounds of each phase but its first, and what was said at the end."""
        write_credentials(self._directory, self._scene.clients)
        try:
            server, honest = await self._start("server"), await self._start("honest")
            while (await heard(server))["round"] < HONEST_ROUNDS:
                pass
            for _ in self._scene.attackers:
                assert "turned" in await heard(honest)
            hostile = await self._start("hostile")
            assert await heard(hostile) == {"ready": True}
            rounds = []
            for phase in phases:
                say(hostile, phase)
                rounds.append(await self._phase(server))
            say(server, "stop")
            async with asyncio.timeout(scaled(30)):
                while "over" not in (end := await heard(server)):
                    pass
                await server.wait()
            say(hostile, "stop")
            return rounds, end | await heard(hostile)
        finally:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def _phase(self, server: asyncio.subprocess.Process) -> list[Record]:
        loop = asyncio.get_running_loop()
        begun, records = loop.time(), list[Record]()
        while (lasted := loop.time() - begun) < MOST_SECONDS and (
            len(records) < ROUNDS or lasted < self._seconds
        ):
            records.append(await heard(server))
        return records[1:]


async def heard(process: asyncio.subprocess.Process) -> Record:
    """Return the next line of a process."""
    assert process.stdout is not None
    async with asyncio.timeout(scaled(300)):
        line = await process.stdout.readline()
    assert line, "a process ended"
    record: Record = json.loads(line)
    return record


def say(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")


def measure(directory: Path, scene: Scene, pairs: int, seconds: float) -> Record:
    """Return what a flood costs beside idle connections: the middle of so many pairs of phases."""
    play = Play(directory, scene, seconds)
    phases, end = asyncio.run(play.run(pairs * ["idle", "flood"]))
    idle, flood = phases[::2], phases[1::2]

    def middle(key: str, records: list[Record]) -> float:
        return float(median(record[key] for record in records))

    def ratio(key: str) -> float:
        pairs = zip(flood, idle, strict=True)
        return median(middle(key, under) / middle(key, beside) for under, beside in pairs)

    flooded, quiet = [r for phase in flood for r in phase], [r for phase in idle for r in phase]
    return {
        "pattern": scene.pattern,
        "hostile": scene.hostile,
        "rounds": len(flooded),
        "lost": [record["reason"] for record in flooded if not record["summed"]],
        "wall": ratio("wall"),
        "cpu": ratio("cpu"),
        "seconds": (middle("wall", quiet), middle("wall", flooded)),
        "memory": (max(r["memory"] for r in quiet), max(r["memory"] for r in flooded)),
        **end,
    }


def excess(found: Record) -> list[str]:
    """Return what is more than it may be."""
    before, after = found["memory"]
    wrong = {
        "rounds were lost": bool(found["lost"]),
        "rounds are longer": found["wall"] > LONGER,
        "rounds cost more": found["cpu"] > LONGER,
        "the server grew": after - SPARE_MEMORY > MORE_MEMORY * before,
        "there are too many lines": found["lines"] > MOST_LINES,
    }
    return [name for name, is_so in wrong.items() if is_so]


def assert_unharmed(directory: Path, scene: Scene, pairs: int, seconds: float) -> Record:
    """Measure up to three times: what the machine does besides hits one phase and not the other."""
    for attempt in range(3):
        place = directory / str(attempt)
        place.mkdir()
        found = measure(place, replace(scene, port=free_port()), pairs, seconds)
        print(json.dumps(found))
        if not (wrong := excess(found)):
            return found
    pytest.fail(f"{wrong}: {found}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hostile", [1, 3, 4])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_flood_of_clients_slows_rounds_down(tmp_path: Path, pattern: str, hostile: int) -> None:
    assert_unharmed(tmp_path, Scene(0, 8, 3, 200_000, hostile, pattern), pairs=3, seconds=4)


def test_one_flooder_of_four_slows_no_round_down(tmp_path: Path) -> None:
    scene = Scene(0, 4, 2, 100_000, 1, "bytes")
    found = assert_unharmed(tmp_path, scene, pairs=1, seconds=1)
    assert found["connections"] > 1 and found["sent"] > 0
