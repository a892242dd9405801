"""The state directory of a run: where each party keeps what, and when it may be used."""

from pathlib import Path

from mphe import SERVER
from mphe.run import CLIENT_FILE, StateError

SESSION, STARTED, PROGRESS = "session", "started", "progress"
OUTPUT, PRIVACY = "output", "privacy"


def party_directory(state_dir: str, index: int) -> Path:
    """Return where this party keeps its files."""
    return Path(state_dir, "server" if index == SERVER else f"client-{index}")


def check_fresh(state_dir: str, index: int, resume: bool) -> None:
    """Refuse to start a new session over a kept one, or to go on with one that is not there."""
    directory = party_directory(state_dir, index)
    kept = (directory / (SESSION if index == SERVER else CLIENT_FILE)).exists()
    if kept and not resume:
        raise StateError(
            f"{directory} holds a session: add --resume True to go on with it, or choose another "
            "--state_dir"
        )
    if resume and index == SERVER and not kept:
        raise StateError(
            f"{directory} holds no session to go on with: leave out --resume, or name the right "
            "--state_dir"
        )
