"""Small steps with the shape of the real chain: a (files) → b → c (by dataset). They only count and add."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.listing import class_names, list_dataset
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.resources import Workspace
from lvdd_assets.steps import Outcome, Outside, Step, Task


def settings_of(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"frames": spec.shape.frames}


def no_settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {}


def files_of(spec: DatasetSpec, classes: Sequence[str], data_root: Path) -> Mapping[str, Outside]:
    listings = list_dataset(spec)
    return {
        name: Outside({clip.name: _sha256(spec.root / clip.name) for clip in listings[name].clips}, payload=spec.root)
        for name in classes
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(task: Task, value: int) -> None:
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("value", np.array([value]))
        out.metrics = {"value": value}


def compute_a(task: Task) -> None:
    if task.class_name == "bad":
        raise ValueError("this class is bad")
    _write(task, sum(int((task.payload / name).read_text()) for name in task.inputs))


def compute_b(task: Task) -> None:
    _write(task, int(task.open("a").read("value")[0]) * task.config["factor"])


def compute_c(task: Task) -> None:
    _write(task, sum(int(task.open("b", name).read("value")[0]) for name in task.class_names))


SOURCE = "lvdd_assets.distill.fidelity"
STEPS = (
    Step("a", "class", compute_a, settings_of, {}, SOURCE, outside=files_of),
    Step("b", "class", compute_b, no_settings, {"factor": 2}, SOURCE, upstream=("a",)),
    Step("c", "dataset", compute_c, no_settings, {}, SOURCE, upstream=("b",)),
)


def make_pipeline(tmp_path: Path, classes: list[str], *, num_workers: int = 1, frames: int = 8) -> Pipeline:
    for index, name in enumerate(classes):
        folder = tmp_path / "videos" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "one.mp4").write_text(str(index + 1))
    registry = tmp_path / "datasets.yaml"
    registry.write_text(
        "default: set\ndatasets:\n  set:\n    root: videos\n    layout: folders\n    split: {test_fraction: 0.5}\n"
        f"    frames: {frames}\n    stride: 1\n    size: 8\n    budget: {{ipc: 1}}\n"
    )
    return Pipeline(Workspace(registry, tmp_path / "data", num_workers), STEPS, progress=False)


def run(pipeline: Pipeline, step: str, config: Mapping[str, Any] | None = None) -> list[Outcome]:
    spec = pipeline.workspace.catalog().dataset("set")
    keys = ["set"] if step == "c" else [f"set/{name}" for name in class_names(spec)]
    defaults = pipeline.step(step).defaults
    return pipeline.bring_up_to_date(step, keys, {**defaults, **(config or {})})


def run_all(pipeline: Pipeline) -> None:
    for step in "abc":
        run(pipeline, step)


def replace_step(step: Step, **changes: Any) -> Step:
    """The step with some fields changed; its code version is derived anew."""
    fields = {name: value for name, value in step.__dict__.items() if name != "code_version"}
    return Step(**{**fields, **changes})
