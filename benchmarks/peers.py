"""How do other systems fare on the same vectors, in the same run?

    python -m benchmarks.peers [--length 199658] [--num_peers 8]

Every system runs one process after the other, in an environment of its own where it needs one
(make bench-peers); those that are not installed are listed as such.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import Spread, Table, save, show

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-peers"
TIMEOUT = 300.0
COLUMNS = (
    "system",
    "encrypt",
    "bytes a value",
    "add",
    "client's share",
    "recover",
    "setup s",
    "largest error",
)


@dataclass(frozen=True)
class Args:
    """What is measured."""

    length: int
    num_peers: int


@dataclass(frozen=True)
class Script:
    """A peer's module, its argument and its environment (empty: this one)."""

    module: str
    argument: str = ""
    environment: str = ""


SCRIPTS = (
    Script("ours", "hybrid"),
    Script("ours", "direct"),
    Script("plain"),
    Script("aes_mask"),
    Script("flower_secagg", environment="flower"),
    Script("tenseal_ckks", environment="tenseal"),
    Script("openfhe_bfv", environment="openfhe"),
)


def run(script: Script, vectors: Path) -> dict[str, Any] | str:
    """Return what a peer measured, or why it did not."""
    python = Path(sys.executable)
    if script.environment:
        python = ENVIRONMENTS / script.environment / "bin" / "python"
        if not python.exists():
            return "not installed: make bench-peers"
    words = [str(python), "-m", f"benchmarks.peer.{script.module}", str(vectors)]
    words += [script.argument] if script.argument else []
    try:
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=True
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {TIMEOUT:g} s"
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "no message").strip().splitlines()
        return f"failed: {lines[-1][:100]}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def spread(seconds: list[float]) -> Spread | None:
    """Return the spread, or None where a system has no such step."""
    return Spread.of(seconds) if seconds else None


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=199_658, help="values of an update")
    parser.add_argument("--num_peers", type=int, default=8, help="clients, an even number")
    args = Args(**vars(parser.parse_args()))
    steps = Table("Peers", COLUMNS)
    terms = Table("What each gives", ("system", "version", "security", "leaks"))
    ratios = Table("Times this project's hybrid mode", ("system", "encrypt", "bytes", "add"))
    ours: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vectors.npz"
        shape = (args.num_peers, args.length)
        rng = np.random.default_rng(0)
        np.savez(path, vectors=(rng.standard_normal(shape) * 0.01).astype(np.float32))
        for script in SCRIPTS:
            found = run(script, path)
            if isinstance(found, str):
                steps.add(script.module, *[None] * (len(COLUMNS) - 1))
                steps.notes.append(f"{script.module}: {found}")
                continue
            names = ("encrypt", "add", "share", "recover")
            encrypt, add, share, recover = (spread(found[name]) for name in names)
            rate = found["upload_bytes"] / args.length
            row = (found["system"], encrypt, rate, add, share, recover)
            steps.add(*row, found["setup"], found["error"])
            terms.add(*(found[name] for name in terms.columns))
            ours = ours or {"encrypt": encrypt, "rate": rate, "add": add}
            if encrypt is not None and add is not None:
                ratios.add(
                    found["system"],
                    encrypt.median / ours["encrypt"].median,
                    rate / ours["rate"],
                    add.median / ours["add"].median,
                )
    steps.notes.append(
        "Encryption includes rounding to integers; recovery ends with float values. Setup is all "
        "parties' on one core; that of masks and of Flower leaves the key exchange out. OpenFHE "
        "takes Python lists, which is part of its time."
    )
    for table in (steps, terms, ratios):
        show(table)
    save("peers", args, [steps, terms, ratios])


if __name__ == "__main__":
    main()
