"""What a worker of a Dask cluster does: sees whether it can take part in a run, then runs one task.

It has the task, and nothing of the environment of the process that planned it. So this imports no step and no
partitions, which want a registry; only a task that is run does.
"""

import functools
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdd_assets.distill.places import Place, is_local, read_bytes
from lvdd_assets.distill.source_code import code_version_of
from lvdd_assets.resources import do_without_registry


@dataclass(frozen=True)
class Unfit:
    """A worker that cannot take part, and why."""

    worker: str
    why: str


@dataclass(frozen=True)
class Needs:
    """What a worker must have for the tasks of a step.

    Attributes:
        module: the step's module.
        templates: the step's further files.
        without: modules that are no part of its code.
        code: its code version where the run was started.
        token: a file that was written to the data root when the run was started.
        videos: the dataset's folder, for a step that reads it.
        from_host: where the run was started.
    """

    module: str
    templates: tuple[Path, ...]
    without: frozenset[str]
    code: str
    token: Place
    videos: Path | None
    from_host: str


def has_package() -> bool:
    """Whether this package is there, for where that is not known."""
    return True


def run_here(needs: Needs, pickled: bytes) -> Any:
    """Runs one task: function that runs it, step's function and task, pickled.

    They are unpickled here and nowhere before, since that imports the step's module, and with it the partitions.
    """
    from distributed import get_worker

    why = _why_unfit_once(needs)
    if why:
        return Unfit(get_worker().address, why)
    do_without_registry()
    run, compute, task = pickle.loads(pickled)
    _limit_threads()
    return run(compute, task)


@functools.lru_cache(maxsize=64)
def _why_unfit_once(needs: Needs) -> str:
    return why_unfit(needs)


def why_unfit(needs: Needs) -> str:
    """Why this process cannot do a step's tasks, beginning with its host; empty where it can."""
    why = _why_other_code(needs) or _why_other_root(needs.token, needs.from_host)
    if not why and needs.videos is not None and not needs.videos.is_dir():
        why = f"does not see the videos in {needs.videos}: mount them there, too"
    return f"on {os.uname().nodename} {why}" if why else ""


def _why_other_code(needs: Needs) -> str:
    try:
        code = code_version_of(needs.module, needs.templates, without=needs.without)
    except (ValueError, OSError) as error:
        code = str(error)
    if code == needs.code:
        return ""
    return (
        f"has another version of the code of {needs.module} ({code}, on {needs.from_host} {needs.code}): install the "
        "same lvdd-assets there and start the worker again"
    )


def _why_other_root(token: Place, from_host: str) -> str:
    """Why what was written to the data root cannot be read here; a network file system gets some seconds."""
    for wait in (0.0, 0.5, 1.0, 2.0):
        time.sleep(wait)
        try:
            if read_bytes(token) is not None:
                return ""
        except Exception as error:  # each object store's library has its own, most of them about credentials
            advice = "" if is_local(token) else "; give the worker the credentials and the endpoint in its environment"
            return f"cannot read {token.parent} ({type(error).__name__}: {error}){advice}"
    return (
        f"does not see what {from_host} writes to {token.parent}: LVDD_DATA_ROOT must be one folder that all machines "
        "mount under the same name, or a bucket"
    )


@functools.cache
def _limit_threads() -> None:
    """One thread for each class, for as long as this worker lives.

    A worker that runs several classes at a time cannot lift the limit after one of them: it would for the others, too.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
