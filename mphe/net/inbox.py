"""Events of many peers, taken in turns.

Nothing is queued here: an event is made when somebody asks for one. So a peer can fill no queue,
and one that has a thousand frames waiting delays another one's frame by one of its own.
"""

import asyncio
from collections import OrderedDict
from typing import Protocol

from mphe.net.events import Event


class Source(Protocol):
    """Whose events are taken."""

    def next_event(self) -> Event | None:
        """Return the oldest event of this source; None when there is none."""


class Inbox:
    """Takes an event of each source that has one, then the next of each."""

    def __init__(self) -> None:
        self._ready: OrderedDict[Source, None] = OrderedDict()
        self._roused = asyncio.Event()

    def rouse(self, source: Source) -> None:
        """Ask this source for its events; it keeps its place if it has one."""
        self._ready.setdefault(source)
        self._roused.set()

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take an event; None when `timeout` seconds pass first (None waits for ever).

        Returns to the event loop before each, however many wait: connections are accepted, read
        and written between any two frames.
        """
        await asyncio.sleep(0)
        event = self._take()
        if event is not None:
            return event
        try:
            async with asyncio.timeout(timeout):
                return await self._wait()
        except TimeoutError:
            return None

    async def _wait(self) -> Event:
        while (event := self._take()) is None:
            self._roused.clear()
            await self._roused.wait()
        return event

    def _take(self) -> Event | None:
        while self._ready:
            source, _ = self._ready.popitem(last=False)
            event = source.next_event()
            if event is not None:
                self._ready[source] = None  # behind all others
                return event
        return None
