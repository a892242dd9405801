"""`--resume True` goes on with the flags of the session's first start, or not at all."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from fl.config.arguments import Args
from fl.config.flags import UsageError

# What says where and how a party runs, not what is learnt or encrypted.
MAY_CHANGE = frozenset(
    {
        *("server_address", "output", "state_dir", "resume", "tls", "role", "roster", "identity"),
        *("crypto_threads", "round_timeout", "max_failed_rounds", "simulate_dropout", "quiet"),
        "evaluate_every",
    }
)


def check_same_flags(flags: Mapping[str, object], output: Path) -> None:
    """Refuse flags that differ from those in config.json of the session; UsageError."""
    path = output / "config.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["flags"]
        if not isinstance(kept, dict):
            raise ValueError("its flags are no object")
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"cannot read the flags of this session in {path}: restore it, or start without "
            "--resume in another --state_dir"
        ) from None
    for field in dataclasses.fields(Args):
        if field.name in MAY_CHANGE:
            continue
        # A session of an older version ran with what is now the default of a newer flag.
        before, now = kept.get(field.name, field.default), flags[field.name]
        if before != now:
            raise UsageError(
                f"--{field.name} was {before} in this session, not {now}: give the flags of "
                "before, or start without --resume in another --state_dir"
            )
