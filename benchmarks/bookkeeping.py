"""What hundreds and thousands of classes cost where nothing is to be computed, and what one touched clip recomputes.

    python benchmarks/bookkeeping.py [--datasets 4] [--classes 400] [--clips 4] [--brief]

A small real dataset is run once. The many others have files that hold no video, and steps that store what the real one
stored of a class (its figures and pictures, not its arrays): all but the computing is what a user has, through the
same assets, checks, marks and events. Fresh ones are then looked at and run by the installed commands. Seconds are wall
time, with those of the processor beside them, which say more where others use the machine; memory is the peak of a
command, and by how much this process grew at most.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CLASSES = ("grow", "move_left")
ENTRY = (
    "{root: %s, layout: folders, split: %s, frames: 8, stride: 3, size: 48, budget: {bytes: %s}, clips_per_class: 3}"
)
# Runs a command and writes what it took. Linux counts to a command the memory of what started it, so this is small.
USAGE = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024], file)
sys.exit(code)
"""
QUICK = {"eval_report": {"epochs": 1, "batch_size": 4, "rivals": ["video"]}}


def make_project(folder: Path, num_datasets: int, num_classes: int, num_clips: int) -> list[str]:
    """A folder like a user's: registry, dagster.yaml, videos. Names of the datasets with many classes."""
    from lvdd_assets.distill.demo import FPS, render_clip
    from lvdd_assets.distill.video import write_clip

    for split, count, start in (("train", 5, 0), ("test", 2, 100)):
        for motion in CLASSES:
            (folder / "reference" / split / motion).mkdir(parents=True)
            for index in range(count):
                path = folder / "reference" / split / motion / f"{motion}_{index:03d}.mp4"
                write_clip(path, render_clip(motion, seed=start + index), fps=FPS)
    names = [f"many{number}" for number in range(num_datasets)]
    for name in names:
        for label in range(num_classes):
            (folder / name / f"class {label:05d}").mkdir(parents=True)
            for clip in range(num_clips):
                (folder / name / f"class {label:05d}" / f"{clip:03d}.mp4").write_text(f"{name} {label} {clip}")
    entries = {"reference": ENTRY % ("reference", "folders", "90kB")}
    entries |= {name: ENTRY % (name, "{test_fraction: 0.25}", "100MB") for name in names}
    lines = "".join(f"  {name}: {entry}\n" for name, entry in entries.items())
    (folder / "datasets.yaml").write_text(f"default: reference\ndatasets:\n{lines}")
    shutil.copy(PROJECT / "dagster.yaml", folder)
    return names


def stubs(pipeline: Any, reference: str = "") -> Any:
    """The pipeline with steps that store what the reference's stored, as if they had computed it; nothing without."""
    from lvdd_assets.distill.file_stores import FileStore

    def stub(step: Any) -> Callable[[Any], None]:
        store = step.store(pipeline.workspace.data_root)
        key = f"{reference}/{CLASSES[0]}" if step.by == "class" else reference
        metrics = store.commit_of(key).metrics if reference else {}
        if isinstance(store, FileStore):
            files = {name: store.read(key, name) for name in store.commit_of(key).files} if reference else {}
            path = store.fetch(key, f"{key}.zarr.zip") if reference and step.name == "release" else None

            def write_files(task: Any) -> None:
                named = {name.replace(reference, task.dataset.name): data for name, data in files.items()}
                if path is not None:
                    named = {f"{task.dataset.name}.zarr.zip": release_of(task.class_names, path)}
                step.store(task.data_root).write(task.key, files=named, metrics=metrics, **task.commit_arguments())

            return write_files
        partition = store.open(key) if reference else None
        preview = partition.read("preview") if partition is not None and partition.num_rows("preview") else None

        def write_arrays(task: Any) -> None:
            with step.store(task.data_root).write(task.key, **task.commit_arguments()) as out:
                if preview is not None:
                    out.put("preview", preview)
                out.metrics = metrics

        return write_arrays

    return replace(pipeline, steps=tuple(_with_compute(step, stub(step)) for step in pipeline.steps), progress=False)


def release_of(class_names: Sequence[str], path: Path) -> bytes:
    """A release in which every class is the first of another release."""
    from lvdd_assets.distill.quantization import read_weights
    from lvdd_assets.distill.release import ReleaseParts, load_release, pack

    release = load_release(path)
    weights = read_weights(release.decoder_data, release.build_decoder(), release.scheme)
    coded = dict.fromkeys(class_names, release.coded[0])
    return pack(ReleaseParts("many", release.shape, coded, release.decoder_spec, weights, shared=release.shared))


def _with_compute(step: Any, compute: Callable[[Any], None]) -> Any:
    code_version = step.code_version
    changed = replace(step, compute=compute)
    changed.__dict__["code_version"] = code_version
    return changed


def materialize(pipeline: Any, dataset: str, config: Mapping[str, Any] | None = None) -> set[str]:
    """The whole chain through Dagster's assets in this process; what was computed, "asset key"."""
    import dagster as dg

    from lvdd_assets import definitions
    from lvdd_assets.partitions import BY_CLASS, BY_DATASET

    computed = set()
    with dg.DagsterInstance.ephemeral() as instance:
        for names, partitions in (
            ([step.name for step in pipeline.steps if step.by == "class"], BY_CLASS),
            ([step.name for step in pipeline.steps if step.by == "dataset"], BY_DATASET),
        ):
            ops = {name: {"config": values} for name, values in (config or {}).items() if name in names}
            result = dg.materialize(
                [*definitions.defs.assets, *definitions.defs.asset_checks],
                selection=dg.AssetSelection.assets(*names).without_checks(),
                resources={"pipeline": pipeline},
                tags=dict(partitions.get_tags_for_partition_key(dataset)),
                run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                instance=instance,
            )
            computed |= {
                f"{event.asset_key.to_user_string()} {event.partition}"
                for event in result.get_asset_materialization_events()
                if not event.step_materialization_data.materialization.metadata["cached"].value
            }
    return computed


class Table:
    """Rows of what was done and what it took, printed as they come."""

    def head(self) -> None:
        print("| what | s | s of CPU | MB |\n| --- | ---: | ---: | ---: |", file=sys.stderr)

    def show(self, what: str, seconds: float, cpu_seconds: float, memory: str) -> None:
        print(f"| {what} | {seconds:.1f} | {cpu_seconds:.1f} | {memory} |", file=sys.stderr, flush=True)

    @contextmanager
    def row(self, what: str) -> Iterator[None]:
        """A row for what runs inside, in this process."""
        from lvdd_assets.distill.measuring import measure

        cpu = time.process_time()
        with measure(what) as stage:
            yield
        grown = "not known" if stage.grown_bytes is None else f"+{stage.grown_bytes / 1e6:.0f}"
        self.show(what, stage.seconds, time.process_time() - cpu, grown)

    def command(self, what: str, folder: Path, *words: str) -> str:
        """A row for an installed command; what it prints.

        Raises:
            RuntimeError: it failed.
        """
        environment = {**os.environ, "DAGSTER_HOME": str(folder)}
        usage = folder / "usage.json"
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-S", "-c", USAGE, str(usage), str(BIN / words[0]), *words[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        if run.returncode != 0:
            raise RuntimeError(
                f"{' '.join(words)} ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
            )
        cpu_seconds, peak_bytes = json.loads(usage.read_text())
        self.show(what, seconds, cpu_seconds, f"{peak_bytes / 1e6:.0f}")
        return run.stdout + run.stderr


def first_runs(many: Any, names: Sequence[str], table: Table, every: str, *, brief: bool) -> None:
    """Stores all of it; with `brief`, Dagster hears of the first dataset alone."""
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.partitions import class_key

    for number, name in enumerate(names):
        if number == 0 or not brief:
            with table.row(f"first run of {name}, {every}, steps that only store"):
                materialize(many, name)
            continue
        spec = many.workspace.catalog().dataset(name)
        with table.row(f"the same for {name}, without Dagster"):
            for step in many.steps:
                keys = [class_key(name, label) for label in class_names(spec)] if step.by == "class" else [name]
                many.bring_up_to_date(step.name, keys, step.defaults)


def measure_commands(folder: Path, names: Sequence[str], num_classes: int, table: Table, *, brief: bool) -> None:
    """The installed commands over what is fresh.

    Args:
        brief: leaves out Dagster's own command.

    Raises:
        RuntimeError: one failed.
        AssertionError: something ran that was fresh.
    """
    first, every = names[0], f"{num_classes} classes"
    said = table.command(f"lvdd stale, {len(names)} datasets of {every}", folder, "lvdd", "stale", *names)
    assert said.count("all fresh") == len(names), said
    for select in () if brief else ("hosvd_cores", "*hosvd_cores"):
        words = ("--select", select, "--partition", first, "-m", "lvdd_assets.definitions")
        what = f"dagster asset materialize --select '{select}', {every}, all fresh"
        said = table.command(what, folder, "dagster", "asset", "materialize", *words)
        assert f"hosvd_cores: computed 0 of {num_classes} partitions" in said, said[-3000:]
    for what in ("Dagster has yet to learn of it" if brief else "of the dataset too", "again"):
        said = table.command(f"lvdd run, {every}, all fresh, {what}", folder, "lvdd", "run", first)
        assert said.count(f"0 computed, {num_classes} fresh") == 4, said


def touch_one(folder: Path, many: Any, names: Sequence[str], num_classes: int, table: Table) -> dict[str, list[str]]:
    """Changes one clip of one class; what was foretold to be stale, what a run computed, and what it should."""
    key = f"{names[0]}/class {num_classes // 2:05d}"
    (folder / key / "001.mp4").write_text("another clip")
    with table.row(f"plan of {num_classes} classes, one clip touched"):
        stale = {f"{one.step.name} {one.task.key}" for one in many.plan(names[0]) if one.is_stale}
    with table.row(f"run of {num_classes} classes, one clip touched, steps that only store"):
        computed = materialize(many, names[0])
    expected = {f"{step.name} {key if step.by == 'class' else names[0]}" for step in many.steps}
    return {"stale": sorted(stale), "computed": sorted(computed), "expected": sorted(expected)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=4)
    parser.add_argument("--classes", type=int, default=400, help="of each dataset")
    parser.add_argument("--clips", type=int, default=4, help="files of each class")
    parser.add_argument("--brief", action="store_true", help="fewer runs through Dagster")
    parser.add_argument("--touch-only", action="store_true", help="no real dataset and no commands, print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bookkeeping-") as name:
        folder, table = Path(name), Table()
        names = make_project(folder, options.datasets, options.classes, options.clips)
        os.environ |= {
            "LVDD_DATASETS": str(folder / "datasets.yaml"),
            "LVDD_DATA_ROOT": str(folder / "data"),
            "LVDD_WORKERS": "1",
        }
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.resources import workspace_from_environment

        pipeline = replace(build_pipeline(workspace_from_environment()), progress=False)
        if not options.touch_only:
            materialize(pipeline, "reference", QUICK)
        many = stubs(pipeline, "" if options.touch_only else "reference")
        table.head()
        first_runs(many, names, table, f"{options.classes} classes", brief=options.brief)
        if not options.touch_only:
            measure_commands(folder, names, options.classes, table, brief=options.brief)
        found = touch_one(folder, many, names, options.classes, table)
        if options.touch_only:
            print(json.dumps(found))
        assert found["stale"] == found["computed"] == found["expected"], found
        print(
            f"\nOne touched clip made its class in each asset and the dataset's roll-up, nothing else. "
            f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
