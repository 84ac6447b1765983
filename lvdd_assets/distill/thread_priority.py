"""Keeps threads at the priority they had, where a library makes them real-time ones.

As root on Linux, SVT-AV1 makes the thread that opens an encoder real-time (SCHED_FIFO, 99), and with it every thread
and process that this one begins from then on. Those run before everything else on the machine, Dask's heartbeats and
workers included.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def keep_priority() -> Iterator[None]:
    """Gives this thread, and those that came while the body ran, this thread's policy and priority of before.

    Where there is no such thing as a thread's policy, as on macOS, it does nothing.
    """
    if not (hasattr(os, "sched_setscheduler") and _THREADS.is_dir()):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    there = _threads()
    try:
        yield
    finally:
        for thread in {threading.get_native_id()} | (_threads() - there):
            with suppress(ProcessLookupError, PermissionError):  # it has ended, or was never ours to change
                if (os.sched_getscheduler(thread), os.sched_getparam(thread)) != (policy, parameter):
                    os.sched_setscheduler(thread, policy, parameter)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _THREADS.iterdir()}
