"""Every command of the documents that starts main.py is one that main.py takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fl.config.resolve import parse_args

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
COMMAND = re.compile(r"^ *(?:mpirun|srun|python)\b.*?\bmain\.py (--num_peers|--role)([^&]*)")
PLACES = {"FLAGS": "", "SEED": "0"}  # of the rows of docs/learning.md


def commands() -> list[str]:
    """Return the words after main.py of each; a line that ends in \\ goes on in the next."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [match[1] + match[2] for match in map(COMMAND.match, text.splitlines()) if match]
    return found


@pytest.mark.parametrize("command", commands())
def test_it_is_accepted(command: str) -> None:
    words = shlex.split(command)
    parse_args([PLACES.get(word, word) for word in words if PLACES.get(word, word)])


def test_the_scan_finds_them() -> None:
    assert len(commands()) > 15
    assert any("--resiliency 0.75 --num_iterations 100" in command for command in commands())


def test_what_documented_commands_keep_is_no_part_of_a_commit() -> None:
    secret = re.compile(r"(?:--(?:state_dir|identity|new_identity|roster) |npz:|> )([\w./]+)")
    lines = [
        line
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if (line.startswith("    ") and "main.py" in line) or "> roster.json" in line
    ]
    names = {name for line in lines for name in secret.findall(line)}
    assert {"state", "keys/alice", "roster.json", "server.json", "alice.npz"} <= names
    # Some become directories, and a rule may be for directories only.
    words = ["git", "check-ignore", *(f"{name}/" for name in names), *names]
    ignored = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip("this is no checkout of git")
    assert names == {name.rstrip("/") for name in ignored.stdout.split()}


def test_no_document_kills_by_pattern() -> None:
    for path in SOURCES:
        assert not re.search(r"pkill\b.*-f|killall", path.read_text(encoding="utf-8")), path
