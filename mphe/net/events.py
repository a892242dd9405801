"""What a transport reports to the code that drives it."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Connected:
    """The peer is there and identified; frames may be sent to it."""

    peer: int


@dataclass(frozen=True)
class Received:
    """One whole frame of the peer, without its header."""

    peer: int
    payload: bytes


@dataclass(frozen=True)
class Lost:
    """The peer's connection is gone; every Connected ends in exactly one Lost."""

    peer: int
    reason: str


Event = Connected | Received | Lost


async def next_event(inbox: asyncio.Queue[Event], timeout: float | None) -> Event | None:
    """Take the oldest event; None when `timeout` seconds pass first (None waits for ever)."""
    if timeout is None or not inbox.empty():
        return await inbox.get()
    try:
        async with asyncio.timeout(timeout):
            return await inbox.get()
    except TimeoutError:
        return None
