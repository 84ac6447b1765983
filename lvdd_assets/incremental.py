"""Runs steps over partition keys: skip what is fresh, compute what is stale, go on after damage, report.

Whoever launches a run (command line, UI, backfill, sensor), the asset's body ends up here, so all skip the same way. A
step that is asked for first brings its stale upstream partitions up to date, with the settings they were made with;
what was never made is an error that names the command. What is stale is told by `staleness`, tasks are run by `pool`.
"""

import shlex
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.commits import DamagedError
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.partitions import split_key
from lvdd_assets.pool import Lost, run_tasks
from lvdd_assets.resources import Workspace
from lvdd_assets.staleness import Planned, all_configs, plan_chain
from lvdd_assets.steps import Outcome, Step, StepError, Task, input_name, some
from lvdd_assets.timings import Taken, remember

# How often a run looks again after stored data was replaced or damaged under it.
_MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Pipeline:
    """The chain of steps over one workspace, in the order in which they depend on each other."""

    workspace: Workspace
    steps: tuple[Step, ...]
    progress: bool = field(default_factory=lambda: sys.stderr.isatty())

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    def plan(
        self, dataset: str, config: Mapping[str, Mapping[str, Any]] | None = None, *, force: bool = False
    ) -> Iterator[Planned]:
        """All partitions of a dataset, fresh or stale, as a run of the whole chain would find them, step by step.

        Args:
            dataset: its name.
            config: run config by step; fields that are not given have their defaults, as in such a run.
            force: whether all of them are to be made anew.

        Raises:
            ValueError: the config has a step or a field that is unknown.
        """
        spec = self.workspace.catalog().dataset(dataset)
        configs = all_configs(self.steps, config or {})
        for planned in plan_chain(self.workspace, self.steps, spec, configs=configs):
            for one in planned:
                yield replace(one, reasons=("forced",)) if force and not one.is_stale else one

    def bring_up_to_date(
        self, name: str, keys: Sequence[str], config: Mapping[str, Any] | None, *, force: bool = False
    ) -> list[Outcome]:
        """Makes the partitions of one step fresh, and before that what is stale above them.

        Args:
            name: the step.
            keys: its partition keys.
            config: the run config's values; None for those that the partitions were made with. Steps above always
                keep theirs.
            force: whether these partitions are made anew although they are fresh. Those above are not.

        Returns:
            One outcome for each of the step's keys, cached or not, and one for each upstream partition that was
            computed.

        Raises:
            StepError: something upstream was never made, or a partition failed.
        """
        catalog = self.workspace.catalog()
        outcomes: list[Outcome] = []
        for dataset in dict.fromkeys(split_key(key)[0] for key in keys):
            wanted = tuple(split_key(key)[1] for key in keys if split_key(key)[0] == dataset)
            outcomes += self._bring_dataset(name, catalog.dataset(dataset), wanted, config, force)
        return outcomes

    def _bring_dataset(
        self, name: str, spec: DatasetSpec, classes: tuple[str, ...], config: Mapping[str, Any] | None, force: bool
    ) -> list[Outcome]:
        """As `bring_up_to_date`, of one dataset. What was replaced or damaged meanwhile is planned and done again."""
        target, chain = self.step(name), self._chain(name)
        configs = {name: dict(config)} if config is not None else {}
        forced = frozenset(input_name(name, f"{spec.name}/{one}" if one else spec.name) for one in classes if force)
        done: dict[str, Outcome] = {}
        lost: Lost | None = None
        for _ in range(_MAX_ATTEMPTS):
            plan = plan_chain(
                self.workspace,
                chain,
                spec,
                classes if target.by == "class" else None,
                configs=configs,
                forced=forced - done.keys(),
            )
            self._refuse_missing(name, plan, spec)
            lost = self._run_plan(plan, done)
            if lost is None:
                return [outcome for outcome in done.values() if outcome.step == name or not outcome.cached]
            if isinstance(lost.error, DamagedError):
                self.step(lost.error.asset).store(self.workspace.data_root).withdraw(lost.error.key, lost.error.damage)
        assert lost is not None
        raise StepError(
            f"{name}: {lost.error}. This happened {_MAX_ATTEMPTS} times in a row: see whether another run keeps "
            "writing the same partitions, or the disk is failing; what was finished is stored"
        )

    def _run_plan(self, plan: Sequence[Sequence[Planned]], done: dict[str, Outcome]) -> Lost | None:
        """Computes what is stale step by step, and notes what became of each partition; stops where data was lost."""
        for planned in plan:
            if not planned:
                continue
            step = planned[0].step
            store = step.store(self.workspace.data_root)
            stale = {one.task.key: one for one in planned if one.is_stale}
            # The last class of a run, or the only one, may use what the others leave idle.
            each = max(1, self.workspace.num_workers // max(1, len(stale)))
            taken, lost = self._compute(step, [replace(one.task, num_processes=each) for one in stale.values()])
            for one in planned:
                this, key = input_name(step.name, one.task.key), one.task.key
                commit = store.commit_of(key) if key in taken else one.stored.commit
                if key in taken and commit is not None:
                    done[this] = Outcome(step.name, key, False, taken[key], commit, one.reason)
                elif key not in stale and this not in done:
                    assert commit is not None
                    done[this] = Outcome(step.name, key, True, Taken(0.0), commit)
                    if isinstance(store, FileStore):
                        store.publish(key)
            if lost is not None:
                return lost
        return None

    def _chain(self, name: str) -> list[Step]:
        """The step and all above it, upstream first."""
        needed = {name}
        for step in reversed(self.steps):
            if step.name in needed:
                needed.update(step.upstream)
        return [step for step in self.steps if step.name in needed]

    def _refuse_missing(self, name: str, plan: Sequence[Sequence[Planned]], spec: DatasetSpec) -> None:
        missing: dict[str, list[str]] = {}
        for one in (one for planned in plan for one in planned):
            if one.step.name != name and one.was_never_made:
                missing.setdefault(one.step.name, []).append(one.task.key)
        if not missing:
            return
        parts = [f"{step} for {some(lost)}" for step, lost in missing.items()]
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

    def _compute(self, step: Step, tasks: list[Task]) -> tuple[dict[str, Taken], Lost | None]:
        """Computes tasks; raises after all were tried, so that one bad class costs no other.

        Returns:
            What each that was done took, and data that was lost under some task.
        """
        taken: dict[str, Taken] = {}
        errors: dict[str, str] = {}
        lost: Lost | None = None
        bar = tqdm(total=len(tasks), desc=step.name, unit=step.by, disable=not self.progress or not tasks, leave=False)
        with bar:
            for task, answer in run_tasks(step, tasks, self.workspace):
                bar.update()
                if isinstance(answer, Taken):
                    taken[task.key] = answer
                elif isinstance(answer, Lost):
                    lost = answer
                else:
                    errors[task.key] = answer
        self._remember(step, taken)
        if errors:
            finished = f"; {len(taken)} finished and stored" if taken else ""
            lines = "\n".join(f"  {key}: {message}" for key, message in sorted(errors.items()))
            raise StepError(f"{step.name} failed for {len(errors)} of {len(tasks)} partitions{finished}:\n{lines}")
        return taken, lost

    def _remember(self, step: Step, taken: Mapping[str, Taken]) -> None:
        """Keeps what tasks took. Not being able to costs these figures and nothing else."""
        try:
            remember(self.workspace.data_root, step.name, taken)
        except (sqlite3.Error, OSError) as error:
            tqdm.write(f"what {step.name} took is not remembered: {error}", file=sys.stderr)
