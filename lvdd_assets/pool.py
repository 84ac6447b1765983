"""Runs tasks, classes in parallel: in this process, in a pool of processes, or on a running Dask cluster.

A task answers with what it took, with a `Lost` where stored data was replaced or damaged under it, or with what went
wrong as text; it never raises, so that one bad class costs no other.
"""

import atexit
import functools
import hashlib
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from threadpoolctl import threadpool_limits

from lvdd_assets.cluster import run_on_cluster
from lvdd_assets.distill.catalog import CatalogError
from lvdd_assets.distill.commits import DamagedError, ReplacedError, StoreError
from lvdd_assets.distill.measuring import measure
from lvdd_assets.distill.places import why_not_written
from lvdd_assets.resources import Workspace
from lvdd_assets.steps import Step, Task
from lvdd_assets.timings import Taken


@dataclass(frozen=True)
class Lost:
    """A task found stored data replaced by another run, or damaged: look again, and do it again.

    Attributes:
        error: what was found.
    """

    error: ReplacedError | DamagedError


Answer = Taken | Lost | str


def run_tasks(step: Step, tasks: Sequence[Task], workspace: Workspace) -> Iterator[tuple[Task, Answer]]:
    """Runs tasks of one step and yields each when it is done, in any order."""
    if workspace.scheduler and step.by == "class" and tasks:
        yield from run_on_cluster(run_task, step, tasks, workspace)
        return
    alone = len(tasks) <= 1 or step.by == "dataset" or workspace.num_workers <= 1
    if alone or (step.on_device and _is_accelerated(workspace.device)):
        for task in tasks:
            yield task, run_task(step.compute, task, one_thread=step.by == "class")
        return
    from distributed import as_completed

    client = _dask_client(workspace.num_workers)
    # Keys must be unique: the pool takes an equal key for work that is done already.
    run = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()[:12]
    futures: dict[Future[Answer], Task] = {
        client.submit(run_task, step.compute, task, key=f"{step.name}-{run}-{task.key}", pure=False): task
        for task in tasks
    }
    try:
        for future in as_completed(futures):
            task = futures.pop(future)
            try:
                yield task, future.result()
            except Exception as error:  # workers that died again and again, not the task: that one is answered
                yield task, f"{type(error).__name__}: {error}"
    finally:
        for future in futures:  # given up half-way: nobody wants what has not begun
            future.cancel()


def run_task(compute: Callable[[Task], None], task: Task, one_thread: bool = True) -> Answer:
    """Runs one task; what it took, or what went wrong.

    Classes are computed with one thread each, in a pool or not: the number of threads may change the last bit of a sum.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        if one_thread:
            torch.set_num_threads(1)
        with measure(task.step) as stage, threadpool_limits(1 if one_thread else None):
            compute(task)
    except (ReplacedError, DamagedError) as error:
        return Lost(error)
    except (ValueError, CatalogError, StoreError) as error:
        return str(error)
    except OSError as error:
        return why_not_written(error, task.data_root) or traceback.format_exc(limit=-3)
    except Exception as error:
        stopped = _interruption(error)
        if stopped is not None:
            raise stopped from None
        return traceback.format_exc(limit=-3)
    finally:
        torch.set_num_threads(threads)
    return Taken(stage.seconds, stage.peak_bytes)


def _interruption(error: BaseException) -> BaseException | None:
    """What told this process to stop, where native code that was being imported made another error of it."""
    seen: BaseException | None = error
    while seen is not None and isinstance(seen, Exception):
        seen = seen.__cause__ or seen.__context__
    return seen


def _is_accelerated(device: str) -> bool:
    from lvdd_assets.distill.devices import find_device

    return find_device(device) != "cpu"


@functools.cache
def _dask_client(num_workers: int) -> Any:
    """The pool of this process, started on first use and closed at exit."""
    import dask
    from distributed import Client, LocalCluster

    # One thread each, as Dask sets it; but not its malloc setting, which returns every clip's memory to the system.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
    dask.config.set({"distributed.nanny.pre-spawn-environ": one_thread})
    with _ctrl_c_for_this_process_alone():
        cluster = LocalCluster(
            n_workers=num_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what fails comes back; Dask's own words are of heartbeats after Ctrl-C
        )
        client = Client(cluster)

    def close() -> None:
        client.close()
        cluster.close()

    atexit.register(close)
    return client


@contextmanager
def _ctrl_c_for_this_process_alone() -> Iterator[None]:
    """Keeps SIGINT from threads that are begun within, and from all processes that these ever begin.

    A terminal sends it to all of them, and each would answer with a traceback; this process closes them in order. It
    is not lost meanwhile, but comes afterwards.
    """
    resource_tracker.ensure_running()  # as Python starts it, it unblocks the signal for good
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
