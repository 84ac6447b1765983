"""Runs a step over partition keys: fingerprint, skip what is fresh, compute what is stale, fan out, report.

Whoever launches a run (command line, UI, backfill), the asset's body ends up here, so all skip the same way. A step
that is asked for first brings its stale upstream partitions up to date, with the settings they were made with; what was
never made is an error that names the command. What a step computes belongs to its asset's module; how it lies on disk
to `distill.stores`.
"""

import atexit
import functools
import hashlib
import json
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from lvdd_assets.distill.catalog import CatalogError, DatasetSpec
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.measuring import measure
from lvdd_assets.distill.source_code import syntax
from lvdd_assets.distill.stores import Commit, FileStore, Partition, ZarrStore
from lvdd_assets.partitions import class_key, split_key
from lvdd_assets.resources import Workspace
from lvdd_assets.timings import Taken, remember


class StepError(RuntimeError):
    """A step could not be done for some partitions. What was finished stays stored; the message names the rest."""


@dataclass(frozen=True)
class Outside:
    """What one partition is made from besides the stores.

    Attributes:
        hashes: of files and weights, by name; part of the fingerprint, and kept in the commit mark.
        payload: what the task needs to find them again, e.g. the files; any picklable value.
    """

    hashes: Mapping[str, str]
    payload: Any = None


@dataclass(frozen=True)
class Step:
    """One asset of the chain, as the runner sees it.

    Attributes:
        name: the asset's name.
        by: whether its partitions are classes or datasets.
        compute: makes and commits one partition; a module-level function, since it may run in another process.
        settings: what of a registry entry the result depends on.
        defaults: the run config's fields with their defaults.
        upstream: names of the steps whose partitions it reads.
        outside: what it reads from outside the stores (files, weights): a dataset, some of its classes and the data
            root to what each class is made from.
        modules: names of the modules whose source is the algorithm; the code version is derived from them.
        files: whether it keeps plain files instead of zarr arrays.
        on_device: whether it computes on the workspace's device. On a GPU its classes then run one after the other in
            this process: they would share it, and each would hold the weights.
    """

    name: str
    by: Literal["class", "dataset"]
    compute: Callable[["Task"], None]
    settings: Callable[[DatasetSpec], Mapping[str, Any]]
    defaults: Mapping[str, Any]
    modules: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    outside: Callable[[DatasetSpec, Sequence[str], Path], Mapping[str, Outside]] | None = None
    files: bool = False
    on_device: bool = False

    @functools.cached_property
    def code_version(self) -> str:
        """Hash of the algorithm's source; comments, docstrings and layout do not count."""
        return hashlib.sha256("".join(syntax(module) for module in self.modules).encode()).hexdigest()[:12]

    def store(self, data_root: Path) -> ZarrStore | FileStore:
        """The step's store."""
        return FileStore(data_root, self.name) if self.files else ZarrStore(data_root, self.name)


@dataclass(frozen=True)
class Task:
    """One stale partition of one step, ready to be computed in any process.

    Attributes:
        step: the asset's name.
        dataset: the registry's entry.
        class_name: the class; empty for a step by dataset.
        class_names: all classes of the dataset.
        config: the run config's values.
        settings: the registry's and the config's values that the result depends on, to be stored with it.
        inputs: hashes and fingerprints of all that it is made from, by name.
        payload: what the step's `outside` sent along.
        num_processes: processes that this task may use for itself.
        device: where tensors are computed, as `devices.find_device` takes it.
    """

    step: str
    dataset: DatasetSpec
    class_name: str
    class_names: tuple[str, ...]
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    fingerprint: str
    data_root: Path
    payload: Any = None
    num_processes: int = 1
    device: str = "auto"

    @property
    def key(self) -> str:
        """The partition key."""
        return class_key(self.dataset.name, self.class_name) if self.class_name else self.dataset.name

    def open(self, step: str, class_name: str | None = None) -> Partition:
        """A committed upstream partition: of this task's class, of the named class, or (name "") of the dataset."""
        name = self.class_name if class_name is None else class_name
        key = class_key(self.dataset.name, name) if name else self.dataset.name
        return ZarrStore(self.data_root, step).open(key)

    def commit_arguments(self) -> dict[str, Any]:
        """What every store's `write` wants beside the key and the data."""
        return {"fingerprint": self.fingerprint, "settings": self.settings, "inputs": self.inputs}


@dataclass(frozen=True)
class Outcome:
    """What became of one partition in a run."""

    step: str
    key: str
    cached: bool
    taken: Taken
    commit: Commit


@dataclass(frozen=True)
class Pipeline:
    """The chain of steps over one workspace, in the order in which they depend on each other."""

    workspace: Workspace
    steps: tuple[Step, ...]
    progress: bool = field(default_factory=lambda: sys.stderr.isatty())

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    def bring_up_to_date(self, name: str, keys: Sequence[str], config: Mapping[str, Any] | None) -> list[Outcome]:
        """Makes the partitions of one step fresh, and before that what is stale above them.

        Args:
            name: the step.
            keys: its partition keys.
            config: the run config's values; None for those that the partitions were made with. Steps above always
                keep theirs.

        Returns:
            One outcome for each of the step's keys, cached or not, and one for each upstream partition that was
            computed.

        Raises:
            StepError: something upstream was never made, or a partition failed.
        """
        catalog = self.workspace.catalog()
        outcomes: list[Outcome] = []
        for dataset_name in dict.fromkeys(split_key(key)[0] for key in keys):
            spec = catalog.dataset(dataset_name)
            # Looked up once a run: where the registry does not list them, this looks at the folders.
            all_classes = class_names(spec)
            wanted = tuple(split_key(key)[1] for key in keys if split_key(key)[0] == dataset_name)
            chain = self._chain(name, all_classes, wanted)
            self._refuse_missing(name, chain, spec)
            for step, classes in chain:
                own = step.name == name
                done = self._run_step(step, spec, all_classes, classes, config if own else None)
                outcomes += [outcome for outcome in done if own or not outcome.cached]
        return outcomes

    def _chain(
        self, name: str, all_classes: tuple[str, ...], wanted: tuple[str, ...]
    ) -> list[tuple[Step, tuple[str, ...]]]:
        """The step and all above it, upstream first, each with the classes it needs ("" for a step by dataset)."""
        target = self.step(name)
        needed = {name}
        for step in reversed(self.steps):
            if step.name in needed:
                needed.update(step.upstream)
        classes = wanted if target.by == "class" else all_classes
        return [(step, classes if step.by == "class" else ("",)) for step in self.steps if step.name in needed]

    def _refuse_missing(self, name: str, chain: list[tuple[Step, tuple[str, ...]]], spec: DatasetSpec) -> None:
        missing = {}
        for step, classes in chain:
            if step.name == name:
                continue
            store = step.store(self.workspace.data_root)
            lost = [key for key in _keys(spec, classes) if store.commit_of(key) is None]
            if lost:
                missing[step.name] = lost
        if not missing:
            return
        parts = [f"{step} for {_some(lost)}" for step, lost in missing.items()]
        commands = "\n".join(f"    {command}" for command in self._commands_for(missing, spec))
        raise StepError(f"{name}: nothing stored upstream: {'; '.join(parts)}. Run first:\n{commands}")

    def _commands_for(self, missing: Mapping[str, Sequence[str]], spec: DatasetSpec) -> list[str]:
        commands = []
        by_class = [name for name in missing if self.step(name).by == "class"]
        if by_class:
            only = list(dict.fromkeys(key for name in by_class for key in missing[name]))
            where = only[0] if len(only) == 1 else spec.name
            commands.append(f"dagster asset materialize --select '*{by_class[-1]}' --partition {shlex.quote(where)}")
        by_dataset = [name for name in missing if self.step(name).by == "dataset"]
        if by_dataset:
            commands.append(f"dagster asset materialize --select {','.join(by_dataset)} --partition {spec.name}")
        return commands

    def _run_step(
        self,
        step: Step,
        spec: DatasetSpec,
        all_classes: tuple[str, ...],
        classes: tuple[str, ...],
        config: Mapping[str, Any] | None,
    ) -> list[Outcome]:
        store = step.store(self.workspace.data_root)
        outside = step.outside(spec, classes, self.workspace.data_root) if step.outside else {}
        fresh: dict[str, Commit] = {}
        stale = []
        for class_name in classes:
            task = self._task(step, spec, all_classes, class_name, config, outside.get(class_name, Outside({})))
            commit = store.commit_of(task.key)
            if commit is not None and commit.fingerprint == task.fingerprint:
                fresh[task.key] = commit
            else:
                stale.append(task)
        # The last class of a run, or the only one, may use what the others leave idle.
        each = max(1, self.workspace.num_workers // max(1, len(stale)))
        taken = self._compute(step, [replace(task, num_processes=each) for task in stale])
        outcomes = []
        for key in _keys(spec, classes):
            commit = fresh.get(key) or store.commit_of(key)
            assert commit is not None
            outcomes.append(Outcome(step.name, key, key in fresh, taken.get(key, Taken(0.0)), commit))
        return outcomes

    def _task(
        self,
        step: Step,
        spec: DatasetSpec,
        all_classes: tuple[str, ...],
        class_name: str,
        config: Mapping[str, Any] | None,
        outside: Outside,
    ) -> Task:
        """The task that would make a partition from its present inputs. Without a config, the stored one is kept."""
        data_root = self.workspace.data_root
        key = _keys(spec, (class_name,))[0]
        if config is None:
            commit = step.store(data_root).commit_of(key)
            stored = commit.settings.get("config", {}) if commit else {}
            config = {name: stored.get(name, default) for name, default in step.defaults.items()}
        inputs = dict(outside.hashes)
        for upstream in map(self.step, step.upstream):
            above = (class_name,) if step.by == "class" else all_classes
            for above_key in _keys(spec, above if upstream.by == "class" else ("",)):
                commit = upstream.store(data_root).commit_of(above_key)
                assert commit is not None, f"{upstream.name} {above_key} was brought up to date before"
                inputs[f"{upstream.name} {above_key}"] = commit.fingerprint
        settings = {"registry": dict(step.settings(spec)), "config": dict(config)}
        text = json.dumps([step.name, step.code_version, settings, inputs], sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return Task(
            step=step.name,
            dataset=spec,
            class_name=class_name,
            class_names=all_classes,
            config=config,
            settings=settings,
            inputs=inputs,
            fingerprint=fingerprint,
            data_root=data_root,
            payload=outside.payload,
            device=self.workspace.device,
        )

    def _compute(self, step: Step, tasks: list[Task]) -> dict[str, Taken]:
        """Computes tasks, classes in parallel; raises after all were tried, so that one bad class costs no other."""
        taken: dict[str, Taken] = {}
        errors: dict[str, str] = {}
        bar = tqdm(total=len(tasks), desc=step.name, unit=step.by, disable=not self.progress or not tasks, leave=False)
        with bar:
            for task, result in self._results(step, tasks):
                bar.update()
                if isinstance(result, Taken):
                    taken[task.key] = result
                else:
                    errors[task.key] = result
        remember(self.workspace.data_root, step.name, taken)
        if errors:
            done = f"; {len(taken)} finished and stored" if taken else ""
            lines = "\n".join(f"  {key}: {message}" for key, message in sorted(errors.items()))
            raise StepError(f"{step.name} failed for {len(errors)} of {len(tasks)} partitions{done}:\n{lines}")
        return taken

    def _results(self, step: Step, tasks: list[Task]) -> Iterator[tuple[Task, Taken | str]]:
        workers = min(self.workspace.num_workers, len(tasks))
        alone = len(tasks) <= 1 or step.by == "dataset" or (workers <= 1 and not self.workspace.scheduler)
        if alone or (step.on_device and _is_accelerated(self.workspace.device)):
            for task in tasks:
                yield task, _run_task(step.compute, task, one_thread=step.by == "class")
            return
        from distributed import as_completed

        client = _dask_client(self.workspace.num_workers, self.workspace.scheduler)
        # Keys must be unique: a shared scheduler silently takes an equal key for work that is done already.
        run = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()[:12]
        futures: dict[Future[Taken | str], Task] = {
            client.submit(_run_task, step.compute, task, key=f"{step.name}-{run}-{task.key}", pure=False): task
            for task in tasks
        }
        for future in as_completed(futures):
            task = futures[future]
            try:
                yield task, future.result()
            except Exception as error:  # a worker that died, not the task: that one is answered by _run_task
                yield task, f"{type(error).__name__}: {error}"


def _keys(spec: DatasetSpec, classes: Iterable[str]) -> list[str]:
    return [class_key(spec.name, name) if name else spec.name for name in classes]


def _is_accelerated(device: str) -> bool:
    from lvdd_assets.distill.devices import find_device

    return find_device(device) != "cpu"


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def _run_task(compute: Callable[[Task], None], task: Task, one_thread: bool = True) -> Taken | str:
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
    except (ValueError, CatalogError) as error:
        return str(error)
    except Exception:
        return traceback.format_exc(limit=-3)
    finally:
        torch.set_num_threads(threads)
    return Taken(stage.seconds, stage.peak_bytes)


@functools.cache
def _dask_client(num_workers: int, scheduler: str) -> Any:
    """The pool of this process, started on first use and closed at exit; or a client of a running scheduler."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler:
        return Client(scheduler)
    # One thread each, as Dask sets it; but not its malloc setting, which returns every clip's memory to the system.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
    dask.config.set({"distributed.nanny.pre-spawn-environ": one_thread})
    cluster = LocalCluster(
        n_workers=num_workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=40
    )
    client = Client(cluster)

    def close() -> None:
        client.close()
        cluster.close()

    atexit.register(close)
    return client
