"""Tasks are answered, never raised; what kills a worker costs one task; threads are one a class."""

import errno
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lvdd_assets.distill.commits import DamagedError, ReplacedError
from lvdd_assets.incremental import Pipeline
from lvdd_assets.pool import Lost, run_task, run_tasks
from lvdd_assets.steps import StepError, Task
from lvdd_assets.timings import Taken
from tests.counting_chain import STEPS, compute_a, make_pipeline, replace_step, run


def _task(tmp_path: Path) -> Task:
    return next(iter(make_pipeline(tmp_path, ["x"]).plan("set"))).task


def _raising(error: BaseException) -> object:
    def compute(task: Task) -> None:
        raise error

    return compute


def test_a_task_that_is_done_says_what_it_took(tmp_path: Path) -> None:
    answer = run_task(compute_a, _task(tmp_path))
    assert isinstance(answer, Taken)
    assert answer.seconds > 0


@pytest.mark.parametrize(
    "error", [ReplacedError("a set/x was replaced"), DamagedError("a", "set/x", "a chunk is gone")], ids=repr
)
def test_lost_data_is_told_apart_from_failure(tmp_path: Path, error: Exception) -> None:
    answer = run_task(_raising(error), _task(tmp_path))
    assert answer == Lost(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("class 'x' has no clips"), "class 'x' has no clips"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left for"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written to"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (ZeroDivisionError("division"), "ZeroDivisionError: division"),
    ],
    ids=repr,
)
def test_what_went_wrong_is_text(tmp_path: Path, error: Exception, said: str) -> None:
    answer = run_task(_raising(error), _task(tmp_path))
    assert isinstance(answer, str)
    assert said in answer
    assert ("Traceback" in answer) is (isinstance(error, ZeroDivisionError) or "output" in str(error))


def test_being_told_to_stop_is_no_answer_even_from_within_an_import(tmp_path: Path) -> None:
    """Native code that is being imported makes another error of it."""
    wrapped = ImportError("initialization failed")
    wrapped.__cause__ = KeyboardInterrupt()
    for error in (KeyboardInterrupt(), wrapped):
        with pytest.raises(KeyboardInterrupt):
            run_task(_raising(error), _task(tmp_path))


def test_classes_are_computed_with_one_thread_and_the_setting_comes_back(tmp_path: Path) -> None:
    import torch

    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for one_thread in (True, False):
            run_task(lambda task: seen.append(torch.get_num_threads()), _task(tmp_path), one_thread)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def compute_and_die_once(task: Task) -> None:
    """Kills its worker the first time that class c1 is computed."""
    mark = Path(str(task.data_root)).parent / "died"
    if task.class_name == "c1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    compute_a(task)


def compute_and_die(task: Task) -> None:
    """Kills its worker whenever class c1 is computed."""
    if task.class_name == "c1":
        os.kill(os.getpid(), signal.SIGKILL)
    compute_a(task)


def compute_slowly(task: Task) -> None:
    """Says that it has begun and where, and takes a while."""
    (Path(str(task.data_root)).parent / f"begun-{task.class_name}").write_text(str(os.getpid()))
    time.sleep(0.2)


def _with_first(pipeline: Pipeline, compute: object) -> Pipeline:
    return replace(pipeline, steps=(replace_step(STEPS[0], compute=compute), *STEPS[1:]))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_task_done_again(tmp_path: Path) -> None:
    pipeline = _with_first(make_pipeline(tmp_path, ["c0", "c1", "c2", "c3"], num_workers=2), compute_and_die_once)
    assert len(run(pipeline, "a")) == 4
    assert (tmp_path / "died").exists()
    assert all(not one.is_stale for one in pipeline.plan("set") if one.step.name == "a")


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up_by_name_and_costs_no_other(tmp_path: Path) -> None:
    pipeline = _with_first(make_pipeline(tmp_path, ["c0", "c1", "c2", "c3"], num_workers=2), compute_and_die)
    with pytest.raises(
        StepError, match=r"a failed for 1 of 4 partitions; 3 finished and stored:\n  set/c1: KilledWorker"
    ):
        run(pipeline, "a")
    assert [one.task.key for one in pipeline.plan("set") if one.step.name == "a" and one.is_stale] == ["set/c1"]


def test_no_pool_is_started_for_one_task(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"], num_workers=2)
    (task,) = [one.task for one in pipeline.plan("set") if one.step.name == "a"]
    pids = []
    step = replace_step(STEPS[0], compute=lambda task: pids.append(os.getpid()))
    ((_, answer),) = run_tasks(step, [task], pipeline.workspace)
    assert isinstance(answer, Taken)
    assert pids == [os.getpid()]


@pytest.mark.slow
def test_what_has_not_begun_when_a_run_is_given_up_never_begins(tmp_path: Path) -> None:
    """Once both workers are at work: one that still imports begins what it was sent before."""
    pipeline = make_pipeline(tmp_path, [f"c{index}" for index in range(200)], num_workers=2)
    tasks = [one.task for one in pipeline.plan("set") if one.step.name == "a"]
    answers = run_tasks(replace_step(STEPS[0], compute=compute_slowly), tasks, pipeline.workspace)
    next(answers)
    while len({path.read_text() for path in tmp_path.glob("begun-*")}) < 2:
        next(answers)
    answers.close()
    time.sleep(1)
    begun = len(list(tmp_path.glob("begun-*")))
    time.sleep(1)
    assert 0 < len(list(tmp_path.glob("begun-*"))) == begun < 200
