"""Runs a function on items in child processes, so that native code which crashes, hangs or eats memory costs one item.

A child is a fresh interpreter that gets pickled items through a socket and answers each with a pickled result. It does
not import the parent's `__main__`, can be started from any thread and from daemonic processes, and ends with its
parent. What the function does belongs elsewhere.
"""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lvdd_assets.distill import sandbox; sandbox.serve()"
)


class SandboxError(ValueError):
    """An item for which the function gave no result: it crashed, hung, wanted too much memory, or raised what it should
    not."""


class Sandbox:
    """Child processes that run one function; started when needed and kept until `close`.

    Args:
        function: picklable, from an importable module; item → result.
        seconds: longest time for one item; a child that takes longer is killed.
        memory_bytes: address space of a child, where the platform can limit it.
    """

    def __init__(self, function: Callable[[Any], Any], *, seconds: float, memory_bytes: int) -> None:
        self._function = function
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def map(self, items: Iterable[Item], *, num_processes: int = 1) -> Iterator[tuple[Item, Any]]:
        """Each item with its result, in the items' order; at most `2 * num_processes` results wait to be taken.

        Args:
            items: picklable; taken as they are needed.
            num_processes: children that work at a time.

        Yields:
            The item and what the function gave: its result, the ValueError that it raised, or a SandboxError.
        """
        waiting: deque[tuple[Item, Future[Any]]] = deque()
        pool = ThreadPoolExecutor(num_processes, thread_name_prefix="sandbox")
        try:
            for item in items:
                waiting.append((item, pool.submit(self._call, item)))
                if len(waiting) == 2 * num_processes:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            if waiting:  # given up half-way: nobody wants what is being computed
                for _, future in waiting:
                    future.cancel()
                self.close()
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Ends all children, at work or not."""
        with self._lock:
            children, self._all, self._idle = list(self._all), set(), []
        for child in children:
            child.kill()

    def _call(self, item: object) -> Any:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = _Child(self._function, self._memory_bytes, self._seconds)
            with self._lock:
                self._all.add(child)
        try:
            result = child.run(item, self._seconds)
        except _ChildDiedError as error:
            child.kill()
            with self._lock:
                self._all.discard(child)
            return SandboxError(str(error))
        with self._lock:
            if child in self._all:
                self._idle.append(child)
        return result


class _ChildDiedError(Exception):
    """A child ended without an answer; the message says how."""


class _Child:
    def __init__(self, function: Callable[[Any], Any], memory_bytes: int, seconds: float) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends its children.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        self._memory_bytes = memory_bytes
        self._first: tuple[Any, ...] | None = (function, memory_bytes, seconds)

    def run(self, item: object, seconds: float) -> Any:
        try:
            if self._first is not None:
                _send(self._connection, self._first)
                self._first = None
            _send(self._connection, item)
            if not self._connection.poll(seconds):
                raise _ChildDiedError(f"no result after {seconds:g} s")
            return _receive(self._connection)
        except (EOFError, OSError):
            raise _ChildDiedError(self._reason()) from None

    def _reason(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        if code is None:
            return "the process broke off"
        return f"the process crashed ({signal.Signals(-code).name})" if code < 0 else f"the process ended (exit {code})"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()


def _send(connection: "Connection[Any, Any]", value: object) -> None:
    """Arrays go out of band, without a copy into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    connection.send_bytes(pickle.dumps(value, protocol=5, buffer_callback=buffers.append))
    connection.send_bytes(len(buffers).to_bytes(8, "little"))
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def _receive(connection: "Connection[Any, Any]") -> Any:
    data = connection.recv_bytes()
    num_buffers = int.from_bytes(connection.recv_bytes(), "little")
    # bytearray: arrays made of them can be written to, as those of the function could.
    return pickle.loads(data, buffers=[bytearray(connection.recv_bytes()) for _ in range(num_buffers)])


def serve() -> None:
    """The child's side: answers items until the parent is gone."""
    parent = os.getppid()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    with Connection(int(sys.argv[2])) as connection, suppress(EOFError, OSError):
        function, memory_bytes, seconds = _receive(connection)
        _limit(memory_bytes)
        gc.freeze()  # what was imported stays; what an item leaves behind goes before the next
        while True:
            item = _receive(connection)
            # Should the parent die meanwhile, the kernel ends what nobody waits for, whatever native code is doing.
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
            answer = _answer(function, item, memory_bytes)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(connection, answer)
            del item, answer
            gc.collect()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _answer(function: Callable[[Any], Any], item: object, memory_bytes: int) -> Any:
    try:
        return function(item)
    except MemoryError:
        return SandboxError(f"needs more than {memory_bytes / 2**30:g} GiB of memory")
    except ValueError as error:
        with suppress(Exception):  # one that cannot be rebuilt from its pickle is told by its text
            if type(pickle.loads(pickle.dumps(error))) is type(error):
                return error
        return SandboxError(f"{type(error).__name__}: {error}")
    except Exception as error:
        return SandboxError(f"{type(error).__name__}: {error}")
