"""Which partitions are stale, and why: fingerprints of what a run would make, beside those of what is stored.

A fingerprint is made of a step's code, its settings and its inputs' fingerprints, never of what comes out. So the whole
chain's are known before anything is computed, and looking is cheap: marks are read, files are listed, digests are
remembered.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.commits import Stored
from lvdd_assets.distill.listing import class_names
from lvdd_assets.resources import Workspace
from lvdd_assets.steps import Outside, Step, Task, input_name, key_of, some

Configs = Mapping[str, Mapping[str, Any]]
"""Run config by step; a step that is not in it keeps what its partitions were made with."""


@dataclass(frozen=True)
class Planned:
    """One partition of a step: the task that would make it, what is stored, and why the one is not the other.

    Attributes:
        step: the step.
        task: what would make it now.
        stored: what there is.
        reasons: why it is stale; empty for a fresh one.
    """

    step: Step
    task: Task
    stored: Stored
    reasons: tuple[str, ...]

    @property
    def is_stale(self) -> bool:
        """Whether a run would compute it."""
        return bool(self.reasons)

    @property
    def was_never_made(self) -> bool:
        """Whether nothing was ever stored, or nothing that can be recognised."""
        return self.stored.commit is None and not self.stored.damage

    @property
    def reason(self) -> str:
        """Why it is stale, in a line."""
        return "; ".join(self.reasons)


def all_configs(steps: Iterable[Step], given: Configs) -> dict[str, dict[str, Any]]:
    """The run config of every step: defaults where none is given, as a run has it.

    Raises:
        ValueError: a step or a field is unknown.
    """
    known = {step.name: step for step in steps}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"config for unknown steps {', '.join(unknown)}; there are {', '.join(known)}")
    for name, values in given.items():
        fields = [field for field in values if field not in known[name].defaults]
        if fields:
            raise ValueError(
                f"{name} has no config {', '.join(fields)}; it has {', '.join(known[name].defaults) or 'none'}"
            )
    return {name: {**step.defaults, **given.get(name, {})} for name, step in known.items()}


def plan_chain(
    workspace: Workspace,
    steps: Iterable[Step],
    dataset: DatasetSpec,
    classes: tuple[str, ...] | None = None,
    *,
    configs: Configs,
    forced: frozenset[str] = frozenset(),
) -> list[list[Planned]]:
    """What a run over some steps would do, step by step in their order.

    Args:
        workspace: where everything lies.
        steps: some of the chain in its order, with every step above them.
        dataset: whose partitions.
        classes: of the steps by class; all by default.
        configs: run config by step.
        forced: keys `step key` that are stale whatever is stored.

    Returns:
        For each step, its partitions: of the classes given, or the dataset's one.
    """
    every = class_names(dataset)
    fingerprints: dict[str, str] = {}
    because: dict[str, bool] = {}
    plan = []
    for step in steps:
        wanted = ("",) if step.by == "dataset" else classes if classes is not None else every
        outside = step.outside(dataset, wanted, workspace.data_root) if step.outside else {}
        store, planned = step.store(workspace.data_root), []
        for name in wanted:
            stored = store.state_of(key_of(dataset, name))
            config = configs.get(step.name)
            if config is None:
                kept = stored.settings.get("config", {})
                config = {field: kept.get(field, default) for field, default in step.defaults.items()}
            inputs = {**outside.get(name, Outside({})).hashes, **_above(step, dataset, name, every, fingerprints)}
            task = _task(workspace, step, dataset, name, every, config, inputs, outside.get(name))
            this = input_name(step.name, task.key)
            reasons = ("forced",) if this in forced else why_stale(step, task, stored, because)
            fingerprints[this], because[this] = task.fingerprint, bool(reasons)
            planned.append(Planned(step, task, stored, reasons))
        plan.append(planned)
    return plan


def _above(
    step: Step, dataset: DatasetSpec, class_name: str, every: tuple[str, ...], fingerprints: Mapping[str, str]
) -> dict[str, str]:
    """Fingerprints of the partitions above one, by name: of the same class, or of all classes and the dataset."""
    above = (class_name, "") if step.by == "class" else (*every, "")
    names = [input_name(name, key_of(dataset, one)) for name in step.upstream for one in above]
    return {name: fingerprints[name] for name in names if name in fingerprints}


def _task(
    workspace: Workspace,
    step: Step,
    dataset: DatasetSpec,
    class_name: str,
    every: tuple[str, ...],
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    outside: Outside | None,
) -> Task:
    settings = {"registry": dict(step.settings(dataset)), "config": dict(config)}
    text = json.dumps([step.name, step.code_version, settings, inputs], sort_keys=True)
    return Task(
        step=step.name,
        dataset=dataset,
        class_name=class_name,
        class_names=every,
        config=config,
        settings=settings,
        inputs=inputs,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        code=step.code_version,
        data_root=workspace.data_root,
        payload=outside.payload if outside is not None else None,
        device=workspace.device,
    )


def why_stale(step: Step, task: Task, stored: Stored, is_stale_above: Mapping[str, bool]) -> tuple[str, ...]:
    """Why what is stored is not what the task would make; empty where it is.

    Args:
        step: the task's step.
        task: what would be made now.
        stored: what there is.
        is_stale_above: whether an upstream partition, by its name among the inputs, will be made anew.
    """
    if stored.damage:
        return (f"damaged: {stored.damage}",)
    commit = stored.commit
    if commit is None:
        return ("never made",)
    if commit.fingerprint == task.fingerprint:
        return ()
    reasons = []
    if commit.code != task.code:
        reasons.append("its code has changed")
    for part in ("config", "registry"):
        before, after = commit.settings.get(part, {}), json.loads(json.dumps(task.settings[part]))
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        reasons += [f"{part} {name} {_value(before, name)} → {_value(after, name)}" for name in names]
    changed = [name for name, value in task.inputs.items() if commit.inputs.get(name) != value]
    above = [name for name in changed if name in is_stale_above]
    reasons += [f"{name} changed" for name in changed if name not in is_stale_above]
    verbs: dict[str, list[str]] = {"will be made anew": [], "was made anew": []}
    for upstream in step.upstream:
        keys = [name.removeprefix(f"{upstream} ") for name in above if name.startswith(f"{upstream} ")]
        if keys:
            stale = any(is_stale_above[input_name(upstream, key)] for key in keys)
            what = upstream if keys == [task.key] else f"{upstream} {some(keys)}"
            verbs["will be made anew" if stale else "was made anew"].append(what)
    reasons += [f"{', '.join(names)} {verb}" for verb, names in verbs.items() if names]
    gone = [name for name in commit.inputs if name not in task.inputs]
    if gone:
        reasons.append(f"no longer made from {some(gone)}")
    return tuple(reasons) or ("made by an earlier version",)


def _value(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False, sort_keys=True) if name in values else "unset"
