"""Runs of the counting chain in processes of their own, to be killed, limited, or let loose on each other.

They are forked from a server that has one thread: the process of the tests may have those of a pool, and a lock that
one of them holds stays held in a fork for ever.
"""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import numpy as np
import pytest

from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.steps import StepError, Task
from tests.counting_chain import run, run_all

NUM_VALUES = 40_000
"""Of random bytes, which no codec makes smaller: a partition of `compute_much` takes 40 kB."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__, "torch", "zarr"])


def fork(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Begins work in a process, whose exit code is 0 in the end, 1 after an error, or minus the signal's number."""
    here, there = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_begin, args=(there, work, *arguments))
    process.start()
    assert here.poll(timeout=120), "the process has not begun"
    return process


def _begin(begun: Connection, work: Callable[..., None], *arguments: Any) -> None:
    begun.send(True)
    work(*arguments)


def code_of(process: ForkServerProcess) -> int:
    """The exit code, once it has ended."""
    process.join(timeout=120)
    assert process.exitcode is not None
    return process.exitcode


def compute_much(task: Task) -> None:
    """Step a with a partition that takes room."""
    value = sum(int((task.payload / name).read_text()) for name in task.inputs)
    noise = np.random.default_rng(value).integers(0, 256, NUM_VALUES, dtype=np.uint8)
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("value", np.array([value]))
        out.put("noise", noise)
        out.metrics = {"value": value}


def run_within_a_limit(pipeline: Pipeline, num_bytes: int, message: str) -> None:
    """Runs step a while the system refuses to make a file larger than that; it must fail with the message."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    with pytest.raises(StepError, match=message):
        run(pipeline, "a")


def rewrite_all(pipeline: Pipeline, classes: list[str]) -> None:
    """Makes everything anew, fresh or not."""
    for step in pipeline.steps:
        keys = ["set"] if step.by == "dataset" else [f"set/{name}" for name in classes]
        pipeline.bring_up_to_date(step.name, keys, dict(step.defaults), force=True)


def run_all_at(pipeline: Pipeline, moment: float) -> None:
    """Runs the chain from a moment of the monotonic clock on, which all processes share."""
    time.sleep(max(0.0, moment - time.monotonic()))
    run_all(pipeline)
