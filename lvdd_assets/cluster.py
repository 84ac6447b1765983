"""Runs classes on a Dask cluster that is there already (`LVDD_DASK_SCHEDULER=tcp://…`).

A task carries all that it needs but the bytes, which lie where every machine sees them: the data root, and for the
first step the videos. Whether a worker does see them, and has the same code, is looked at on that worker before its
first task; one that is unfit is named, and its tasks go to the others.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from lvdd_assets.distill.places import Place, is_local, replace_bytes
from lvdd_assets.resources import Workspace
from lvdd_assets.steps import NO_PART_IN_RESULTS, Step, StepError, Task
from lvdd_assets.timings import Taken
from lvdd_assets.workers import Needs, Unfit, has_package, run_here, why_unfit

Answer = TypeVar("Answer")
Run = Callable[[Callable[[Task], None], Task], Answer]

_CONNECT_SECONDS = 10.0
# How long nothing is said about a cluster without workers: one that grows with its queue has none at first.
_NO_WORKER_SECONDS = 20.0
# How long a network file system may take to show what another machine has written; NFS remembers names for a minute.
_VISIBLE_SECONDS = 90.0
_TOKEN = ".cluster-"
_TOKEN_SECONDS = 86400.0
# A task that found only unfit workers that often is given up.
_MAX_TRIES = 20

# What unpickling raises where this package is not installed, or is an older one.
_NO_PACKAGE = (ImportError, AttributeError)

_log = logging.getLogger(__name__)


def run_on_cluster(
    run: Run[Answer], step: Step, tasks: Sequence[Task], workspace: Workspace
) -> Iterator[tuple[Task, Answer | str]]:
    """Runs tasks of one step on the workspace's scheduler and yields each when it is done, in any order.

    Args:
        run: runs one task, and answers whatever happens; a module-level function.
        step: the step.
        tasks: its tasks.
        workspace: names the scheduler and the data root.

    Yields:
        The task, and what `run` answered or, as text, why the cluster did not do it.

    Raises:
        StepError: there is no such scheduler, or no worker that can take part.
    """
    _refuse_private(workspace.data_root)
    with _connection(workspace.scheduler) as client, _token(workspace.data_root) as token:
        videos = tasks[0].dataset.root if step.outside is not None else None
        videos = videos if videos is not None and videos.is_dir() else None
        needs = Needs(
            step.module, step.templates, NO_PART_IN_RESULTS, step.code_version, token, videos, os.uname().nodename
        )
        for task, answer in _Fanout(client, run, step, needs, workspace.scheduler).results(tasks):
            if isinstance(answer, Taken) and not _is_visible(step, task):
                yield task, f"a worker says that it is stored, and {workspace.data_root} does not show it here"
            else:
                yield task, answer


class _Fanout:
    """The tasks of one step on a cluster, each sent again where a worker was unfit for it."""

    def __init__(self, client: Any, run: Run[Any], step: Step, needs: Needs, scheduler: str) -> None:
        self._client, self._run, self._step, self._needs, self._scheduler = client, run, step, needs, scheduler
        self._unfit: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._fetched: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        # Keys must be unique: a shared scheduler silently takes an equal key for work that is done already.
        self._id = uuid.uuid4().hex[:12]

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        self._survey()
        waiting = {self._submit(task): task for task in tasks}
        try:
            self._wait_for_workers()
            while waiting:
                future, result = self._fetched.get()
                task = waiting.pop(future)
                answer = self._answer(future, result)
                if not isinstance(answer, Unfit):
                    yield task, answer
                    continue
                self._leave_out(answer)
                if self._tries[task.key] == _MAX_TRIES:
                    yield task, self._unfit[answer.worker]
                    continue
                waiting[self._submit(task)] = task
        finally:
            for future in waiting:  # given up half-way: nobody wants what has not begun
                with suppress(Exception):
                    future.cancel()

    def _submit(self, task: Task) -> Any:
        attempt = self._tries[task.key] = self._tries.get(task.key, 0) + 1
        # Workers come and go, a restarted one under another address: that none of these is left must stop nothing.
        fit = [worker for worker in self._workers() if worker not in self._unfit] if self._unfit else None
        from distributed.protocol.pickle import dumps  # also of what stands in a notebook

        future = self._client.submit(
            run_here,
            self._needs,
            dumps((self._run, self._step.compute, replace(task, num_processes=1))),
            key=f"{self._step.name}-{self._id}-{attempt}-{task.key}",
            pure=False,
            workers=fit or None,
            allow_other_workers=bool(fit),
        )
        self._client.loop.add_callback(self._fetch, future)
        return future

    async def _fetch(self, future: Any) -> None:
        """Brings an answer here at once: one that still lies on a worker when that dies would be computed again.

        Dask's `as_completed` would do it, and waits for ever where the scheduler goes away meanwhile.
        """
        try:
            result = await future
        except Exception as error:
            result = error
        self._fetched.put((future, result))

    def _answer(self, future: Any, result: Any) -> Any:
        """What a worker answered, or the error that stands for it as text."""
        if isinstance(result, Exception) and future.status != "error":  # the connection's, not the worker's
            return (
                f"the Dask scheduler at {self._scheduler} went away. What was finished is stored: when it is back, run "
                "again"
            )
        if isinstance(result, _NO_PACKAGE):
            return f"a worker {_no_package(result)}"
        if isinstance(result, Exception):  # workers that died again and again, not the task: that one is answered
            return f"{type(result).__name__}: {result}"
        return result

    def _workers(self) -> list[str]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"])

    def _survey(self) -> None:
        """Looks at the workers that are there.

        Raises:
            StepError: there are some, and none is fit.
        """
        try:
            self._client.run_on_scheduler(has_package)
        except _NO_PACKAGE as error:
            raise StepError(f"the Dask scheduler at {self._scheduler} {_no_package(error)}") from None
        found = self._client.run(why_unfit, self._needs, on_error="return")
        for worker, why in found.items():
            if isinstance(why, _NO_PACKAGE):
                why = _no_package(why)
            if isinstance(why, str) and why:
                self._unfit[worker] = f"worker {worker} {why}"
        if found and len(self._unfit) == len(found):
            self._give_up()
        for why in self._unfit.values():
            _log.warning("goes on without one: %s", why)

    def _leave_out(self, unfit: Unfit) -> None:
        """Remembers a worker that came later and is unfit.

        Raises:
            StepError: there is no other, nor comes one soon.
        """
        if unfit.worker not in self._unfit:
            self._unfit[unfit.worker] = f"worker {unfit.worker} {unfit.why}"
            _log.warning("goes on without one: %s", self._unfit[unfit.worker])
        deadline = time.monotonic() + _NO_WORKER_SECONDS
        while all(worker in self._unfit for worker in self._workers()):
            if time.monotonic() > deadline:
                self._give_up()
            time.sleep(0.5)

    def _give_up(self) -> None:
        first, *others = self._unfit.values()
        more = f" ({len(others)} more cannot, either)" if others else ""
        raise StepError(f"no worker of {self._scheduler} can take part: {first}{more}")

    def _wait_for_workers(self) -> None:
        if self._workers():
            return
        with suppress(TimeoutError):
            self._client.wait_for_workers(1, timeout=_NO_WORKER_SECONDS)
            return
        _log.warning("%s has no worker yet; its tasks wait for one (Ctrl-C gives up)", self._scheduler)


@contextmanager
def _connection(scheduler: str) -> Iterator[Any]:
    """A client of a running scheduler."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StepError(
            f"no Dask scheduler answers at {scheduler} (LVDD_DASK_SCHEDULER): {reason}. Start it with `dask "
            "scheduler`, mend the address (tcp://host:8786), or unset the variable to compute on this machine"
        ) from None
    try:
        yield client
    finally:
        with suppress(Exception):  # its scheduler may have gone
            client.close(timeout=5)


@contextmanager
def _token(data_root: Place) -> Iterator[Place]:
    """A small file of the data root, by which a worker sees that its data root is this one."""
    token = data_root / f"{_TOKEN}{uuid.uuid4().hex[:12]}"
    if isinstance(data_root, Path):
        data_root.mkdir(parents=True, exist_ok=True)
        for old in data_root.glob(f"{_TOKEN}*"):  # a killed run's
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > _TOKEN_SECONDS:
                    old.unlink()
    replace_bytes(token, b"see docs/scale.md\n")
    try:
        yield token
    finally:
        with suppress(OSError):
            token.unlink()


def _refuse_private(data_root: Place) -> None:
    """Refuses a data root that no other process sees."""
    if not is_local(data_root) and data_root.protocol == "memory":  # type: ignore[union-attr]
        raise StepError(f"{data_root} lies in the memory of this process: a cluster needs a folder or a bucket")


def _is_visible(step: Step, task: Task) -> bool:
    """Whether this machine sees what a worker has committed, which on a network file system may take a while."""
    store = step.store(task.data_root)
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while store.commit_of(task.key) is None:
        if time.monotonic() > deadline:
            return False
        with suppress(OSError):  # looking into the folder makes NFS ask again
            list(store.folder(task.key).parent.iterdir())
        time.sleep(0.5)
    return True


def _no_package(error: Exception) -> str:
    return (
        f"says: {error}. The scheduler and all workers need the same environment as this process, lvdd-assets included"
    )
