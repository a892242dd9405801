"""Threads for the blocks of a long vector; `mphe/` itself starts none."""

from concurrent.futures import ThreadPoolExecutor

from mphe.run import BlockMap


def block_map(threads: int) -> BlockMap:
    """Return what computes blocks: one after the other, or on so many threads.

    NumPy lets go of the interpreter inside its transforms, so blocks overlap.
    """
    return map if threads == 1 else ThreadPoolExecutor(threads, "crypto").map
