"""The state directory of a run: where each party keeps what, and when it may be used."""

from pathlib import Path

from fl.config.arguments import Args
from mphe.net.transport import SERVER
from mphe.run.vault import StateError

CLIENT = "client"
SESSION, STARTED, PROGRESS = "session", "started", "progress"
OUTPUT, PRIVACY = "output", "privacy"


def party_directory(args: Args, index: int) -> Path:
    """Return where this party keeps its files."""
    return Path(args.state_dir, "server" if index == SERVER else f"client-{index}")


def check_fresh(args: Args, index: int) -> None:
    """Refuse to start a new session over a kept one, or to go on with one that is not there."""
    directory = party_directory(args, index)
    kept = (directory / (SESSION if index == SERVER else CLIENT)).exists()
    if kept and not args.resume:
        raise StateError(
            f"{directory} holds a session: add --resume True to go on with it, or choose another "
            "--state_dir"
        )
    if args.resume and index == SERVER and not kept:
        raise StateError(
            f"{directory} holds no session to go on with: leave out --resume, or name the right "
            "--state_dir"
        )
