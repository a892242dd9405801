"""SIGINT and SIGTERM end a run in good order: what there is gets saved, and nothing waits long."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fl.config.exits import EXIT_SIGNAL

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LEAVE_SECONDS = 4.0
FLUSH_SECONDS = 5.0
"""For what is still to be sent by a party that has ended."""
CLOSE_SECONDS = 1.0
"""The same, of a party that was told to stop."""
T = TypeVar("T")


class Stopped(Exception):
    """A signal ended the run.

    Attributes:
        code: the exit code, 128 + the signal's number, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = EXIT_SIGNAL + number


async def stoppable(
    work: Coroutine[Any, Any, T], announce: Callable[[str], None] | None = None
) -> T:
    """Run `work` to its end, or cancel it at a signal; a second signal ends the process at once.

    Args:
        work: may clean up when it is cancelled.
        announce: is told "stopped by …" at the signal, before anything that takes time.

    Raises:
        Stopped: a signal came, and the work has cleaned up.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    caught: list[int] = []

    def stop(number: int) -> None:
        if caught:
            os._exit(EXIT_SIGNAL + number)
        caught.append(number)
        # Should cleaning up hang, nobody has to send SIGKILL.
        last_resort = threading.Timer(LEAVE_SECONDS, os._exit, [EXIT_SIGNAL + number])
        last_resort.daemon = True
        last_resort.start()
        if announce is not None:
            announce(str(Stopped(number)))
        # The loop waits at its end for the threads of its executor, and an update may take long.
        loop.set_default_executor(ThreadPoolExecutor(1))
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        raise Stopped(caught[0]) from None
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
