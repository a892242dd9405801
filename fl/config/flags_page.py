"""docs/flags.md, all flags as a page: `python -m fl.config.flags_page > docs/flags.md`.

It reads what `python main.py --help` prints, so the page says what the program says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "Always needed": ("num_peers", "server_address", "robust"),
    "Training": (
        *("num_iterations", "batch_size_per_worker", "learning_rate", "learning_rate_schedule"),
        *("server_optimizer", "local_steps", "local_learning_rate", "clip_norm", "weighting"),
        *("seed", "evaluate_every"),
    ),
    "Data and model": ("dataset", "partition", "model"),
    "Encryption": ("aggregation", "encryption", "resiliency", "decryptors", "crypto_threads"),
    "Bytes of an update": ("value_bits", "compression_rate", "rotation"),
    "Clients that vanish": (
        *("round_timeout", "min_contributors", "max_attempts", "max_failed_rounds"),
        "simulate_dropout",
    ),
    "Parties that may lie": ("verify_aggregate", "verify_clients", "max_corrupt"),
    "Differential privacy": (
        *("dp_epsilon", "dp_delta", "dp_unit", "dp_colluding", "dp_noise_multiplier"),
        "dp_sampling_rate",
    ),
    "Parties without a launcher": ("role", "roster", "identity", "tls"),
    "Results and restarts": ("output", "quiet", "state_dir", "resume"),
}
OTHERS = "Others"
HEAD = """# Flags

Of `python main.py`. This page is made by `make flags-doc` from what `python main.py --help` prints.
A flag that cannot work, alone or beside another, is refused in one line that says what to write
instead, with exit code 2.
"""
TAIL = """
Beside these, `python main.py --new_identity DIRECTORY [--name NAME]` makes a key and a certificate
and prints a roster line ([deployment.md](deployment.md)). The planner has flags of its own:
`python -m mphe plan --help`.
"""
_FLAG = re.compile(r"^  --(?P<name>\w+) (?P<value>\S+)(?: {2,}(?P<text>\S.*))?$")
_DEFAULT = re.compile(r"(?: \(default: (?P<last>.*)\)|[;,] default: (?P<inside>.*)| \(required\))$")


@dataclass(frozen=True)
class Flag:
    """A flag as the help explains it: name without dashes, what it takes, what it means."""

    name: str
    value: str
    text: str

    @property
    def row(self) -> str:
        """A line of a table."""
        default = _DEFAULT.search(self.text)
        meaning = self.text[: default.start()] if default else self.text
        shown = (default["last"] or default["inside"] or "required") if default else ""
        cells = (f"`--{self.name} {self.value}`", meaning, shown)
        return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(cell: str) -> str:
    """Return a cell in which no character ends the cell or begins a tag."""
    shown = cell if cell.startswith("`") else cell.replace("<", "&lt;")
    return shown.replace("|", "\\|")


def flags() -> Iterator[Flag]:
    """Yield all flags in the order of the help."""
    lines = _help().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = _FLAG.match(line)
        if found:
            yield Flag(found["name"], found["value"], found["text"] or following.strip())


def _help() -> str:
    """Return what `python main.py --help` prints, each explanation on one line."""
    words, wide = [sys.executable, "main.py", "--help"], os.environ | {"COLUMNS": "10000"}
    shown = subprocess.run(words, cwd=ROOT, env=wide, capture_output=True, text=True, check=True)
    return shown.stdout


def page() -> str:
    """Return docs/flags.md; a flag that no group names stands at its end."""
    known = {flag.name: flag for flag in flags()}
    grouped = {title: [name for name in names if name in known] for title, names in GROUPS.items()}
    named = {name for names in grouped.values() for name in names}
    grouped[OTHERS] = [name for name in known if name not in named]
    parts = [HEAD]
    for title, names in grouped.items():
        if names:
            rows = "\n".join(known[name].row for name in names)
            parts.append(f"## {title}\n\n| flag | meaning | default |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts) + TAIL


if __name__ == "__main__":
    print(page(), end="")
