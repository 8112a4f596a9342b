"""`reset`, `step` and tools may be coroutines: their results, from threads that await nothing."""

import asyncio
import inspect
from typing import Any


def settled(
    value: Any, loop: asyncio.AbstractEventLoop | None = None, limit_s: float | None = None
) -> Any:
    """`value`, or what it comes to if it can be awaited. Blocks; not to be called in a running loop.

    Args:
        loop: a loop that runs in another thread, where `value` is awaited; None: in a loop of its
            own.
        limit_s: seconds after which the waiting is called off.

    Raises:
        TimeoutError: it took longer.
    """
    if not inspect.isawaitable(value):
        return value
    if loop is None:
        return asyncio.run(_awaited(value, limit_s))
    return asyncio.run_coroutine_threadsafe(_awaited(value, limit_s), loop).result()


async def _awaited(value: Any, limit_s: float | None) -> Any:
    return await asyncio.wait_for(value, limit_s)
