"""Kills runs at random moments and looks at what is left; at the end the result must be that of a run left in peace.

    python benchmarks/kills.py chain  [--kills 200] [--seed 0] [--pool-kills 10]
    python benchmarks/kills.py stores [--kills 200] [--seed 0]

`chain` runs the whole chain over two small classes, again and again. Before each attempt one step is made stale (by
force, by removing what it stored, by removing its commit mark, or by exchanging a video), and a process is forked from
one in which everything is imported. It gets SIGKILL by the clock, at a random moment of that step, or at one of its
operations on the file system (mkdir, open for writing, rename, link, remove), half of these from the replacing of the
commit mark on. Then another process reads every stored byte: what is committed must be whole, and what was committed
before must still be.

`stores` kills a process that rewrites the same partitions of a `ZarrStore` and a `FileStore` in a loop, while a reader
at work all the time must see complete old or new ones only.

Ends with code 1 and the reason at the first promise that does not hold.
"""

import argparse
import functools
import importlib
import json
import mmap
import os
import pickle
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

REGISTRY = """
default: tiny
datasets:
  tiny: {root: videos, layout: folders, split: folders, classes: [grow, move_left], frames: 8, stride: 3, size: 48,
         budget: {bytes: 90kB}, recipe: tight, vae: embedded-2d, clips_per_class: 3}
"""
CLASSES = ("grow", "move_left")
CONFIG = {"eval_report": {"epochs": 1, "batch_size": 4, "rivals": ["video"]}}
MARKER = "LVDD_KILLS_OF"
"""In the environment of every process that is started on the way, so that orphans are found."""

_VERSION = re.compile(r"/v-[0-9a-f]{8}-[0-9a-f]{6}-")


class BrokenPromiseError(AssertionError):
    """What must hold after a kill does not."""


# What a victim is at, in memory that outlives it ------------------------------------------------------------------


class Whereabouts:
    """Shared with a forked process: the step it is at, its operations on files since that began, and whether it is
    committing. A killed process leaves it as it was."""

    _FORMAT = struct.Struct("=qqqd")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORMAT.size)
        self.set(-1, 0, False)

    def set(self, step: int, operations: int, commits: bool) -> None:
        self._FORMAT.pack_into(self._memory, 0, step, operations, int(commits), time.monotonic())

    @property
    def step(self) -> int:
        return int(self._FORMAT.unpack_from(self._memory)[0])

    @property
    def operations(self) -> int:
        return int(self._FORMAT.unpack_from(self._memory)[1])

    @property
    def commits(self) -> bool:
        return bool(self._FORMAT.unpack_from(self._memory)[2])


@dataclass
class Watch:
    """An audit hook that counts what a step does to files, and may kill its own process at one of these operations.

    Python raises audit events right before the system call. A commit begins with the replacing of a mark and ends with
    the next version's folder, or the step.
    """

    root: str
    whereabouts: Whereabouts
    kill_in: int = -1
    kill_at: Callable[[int, bool], bool] | None = None
    step: int = -1
    operations: int = 0
    commits: bool = False
    committing: list[int] = field(default_factory=list)

    def begin(self, step: int) -> None:
        self.step, self.operations, self.commits, self.committing = step, 0, False, []
        self.whereabouts.set(step, 0, False)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"):
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        else:
            path = arguments[1] if event in ("os.rename", "os.link") else arguments[0]
        by_handle = event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None)
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not by_handle and not text.startswith(self.root):
            return
        in_version = _VERSION.search(text) is not None
        if event == "os.rename" and not in_version and text.endswith((".commit.json", "zarr.json")):
            self.commits = True
        elif event in ("os.mkdir", "open") and in_version:
            self.commits = False
        self.operations += 1
        if self.commits:
            self.committing.append(self.operations)
        self.whereabouts.set(self.step, self.operations, self.commits)
        if self.kill_at is not None and self.step == self.kill_in and self.kill_at(self.operations, self.commits):
            os.kill(os.getpid(), signal.SIGKILL)


# Processes ---------------------------------------------------------------------------------------------------------


def fork(work: Callable[[], Any], log: Path) -> tuple[int, Path]:
    """Runs work in a forked process; its pid, and the file in which its result will be."""
    result = log.with_suffix(".result")
    result.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid, result
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        result.write_bytes(pickle.dumps(work()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_apart(work: Callable[[], Any], log: Path) -> Any:
    """The result of work in a process of its own, which leaves no thread in this one."""
    pid, result = fork(work, log)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise BrokenPromiseError(f"a process ended with status {status}:\n{log.read_text()[-3000:]}")
    return pickle.loads(result.read_bytes())


def relatives(marker: str) -> list[int]:
    """Processes that were started with the marker in their environment, zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            if f"{MARKER}={marker}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def wait_for_none(marker: str, seconds: float) -> float:
    """Seconds until no such process is left."""
    start = time.monotonic()
    while left := relatives(marker):
        if time.monotonic() - start > seconds:
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120] for pid in left]
            raise BrokenPromiseError(f"orphans after {seconds:g} s: {lines}")
        time.sleep(0.02)
    return time.monotonic() - start


# The chain ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bed:
    """A folder with the videos, the registry and the data root, and what is done with them in processes of their
    own."""

    folder: Path
    num_workers: int = 1

    @property
    def root(self) -> Path:
        return self.folder / "data"

    def pipeline(self) -> Any:
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.incremental import Pipeline
        from lvdd_assets.resources import Workspace

        workspace = Workspace(self.folder / "datasets.yaml", self.root, self.num_workers, device="cpu")
        return Pipeline(workspace, build_pipeline(workspace).steps, progress=False)

    def keys(self, step: Any) -> list[str]:
        return [f"tiny/{name}" for name in CLASSES] if step.by == "class" else ["tiny"]

    def partitions(self) -> Iterator[tuple[int, Any, Any, str]]:
        """Number of the step, the step, its store, and the key, of all partitions."""
        for index, step in enumerate(self.pipeline().steps):
            for key in self.keys(step):
                yield index, step, step.store(self.root), key

    def run(self, watch: Watch, forced: int = -1) -> list[tuple[float, int, list[int]]]:
        """All steps one after the other; seconds of each, its operations on files, and those of them in a commit."""
        sys.addaudithook(watch)
        pipeline, figures = self.pipeline(), []
        for index, step in enumerate(pipeline.steps):
            watch.begin(index)
            start = time.monotonic()
            config = {**step.defaults, **CONFIG.get(step.name, {})}
            pipeline.bring_up_to_date(step.name, self.keys(step), config, force=index == forced)
            figures.append((time.monotonic() - start, watch.operations, watch.committing))
        watch.begin(-1)
        return figures

    def look(self) -> dict[str, str]:
        """The version of every committed partition. Reads every byte.

        Raises:
            BrokenPromiseError: something that is marked as stored is not whole.
        """
        found = {}
        for _, step, store, key in self.partitions():
            stored = store.state_of(key)
            if stored.damage:
                raise BrokenPromiseError(f"{step.name} {key}: {stored.damage}")
            if stored.commit is not None:
                store.verify(key)
                found[f"{step.name} {key}"] = stored.commit.version
        return found

    def photograph(self) -> dict[str, Any]:
        """All that is stored, without the names of versions: marks, files, and what people open."""
        taken: dict[str, Any] = {}
        for _, step, store, key in self.partitions():
            commit = store.commit_of(key)
            if commit is None:
                raise BrokenPromiseError(f"{step.name} {key} is not stored")
            mark = {name: value for name, value in asdict(commit).items() if name != "version"}
            taken[f"{step.name} {key} mark"] = json.dumps(mark, sort_keys=True)
            folder = store.folder(key) / commit.version
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    taken[f"{step.name} {key} {path.relative_to(folder)}"] = path.read_bytes()
            if step.files:
                for name in commit.files:
                    taken[f"{step.name} {key} public {name}"] = store.path(name).read_bytes()
        return taken

    def sweep(self) -> Counter[str]:
        """Removes what dead runs have left: how many leftovers of each step.

        Raises:
            BrokenPromiseError: something is left, damaged or stale afterwards.
        """
        from lvdd_assets.distill.leftovers import find_leftovers

        pipeline, swept = self.pipeline(), Counter[str]()
        is_registered = {key for step in pipeline.steps for key in self.keys(step)}.__contains__
        # Half a file outside a version counts as one once an hour has passed.
        later = time.time() + 2 * 3600
        for step in pipeline.steps:
            for one in find_leftovers(step.store(self.root), is_registered, older_than=24 * 3600, now=later):
                if one.kind != "unfinished":
                    raise BrokenPromiseError(f"taken for unregistered: {one}")
                one.remove()
                swept[step.name] += 1
        for _, step, store, key in self.partitions():
            versions = [path.name for path in store.folder(key).iterdir() if path.name.startswith("v-")]
            if versions != [store.commit_of(key).version]:
                raise BrokenPromiseError(f"{step.name} {key} has versions {versions} after sweeping")
        partial = [str(path) for step in pipeline.steps for path in self._folder(step).rglob("*.partial")]
        if partial:
            raise BrokenPromiseError(f"half files after sweeping: {partial}")
        if len(self.look()) != len(list(self.partitions())):
            raise BrokenPromiseError("something is not stored after sweeping")
        stale = [
            f"{one.step.name} {one.task.key}: {one.reason}" for one in pipeline.plan("tiny", CONFIG) if one.reasons
        ]
        if stale:
            raise BrokenPromiseError(f"stale after sweeping: {stale}")
        return swept

    def spoil(self, index: int, how: str) -> None:
        """Makes a step stale in a way that costs no other its data."""
        for number, _, store, key in self.partitions():
            if number != index:
                continue
            folder = store.folder(key)
            if how == "removed":
                shutil.rmtree(folder, ignore_errors=True)
            mark = store.path(f"{key}.commit.json") if hasattr(store, "publish") else folder / "zarr.json"
            if how in ("removed", "unmarked"):
                mark.unlink(missing_ok=True)

    def exchange_video(self) -> None:
        """Gives one clip of one class the content of another, or its own again."""
        first, second = (self.folder / f"videos/train/grow/grow_{index:03d}.mp4" for index in (0, 1))
        for path in (first, second):
            path.rename(path.with_suffix(".mov"))
        first.with_suffix(".mov").rename(second)
        second.with_suffix(".mov").rename(first)

    def _folder(self, step: Any) -> Path:
        store = step.store(self.root)
        return Path(store.path() if step.files else store.path)


def render(folder: Path) -> None:
    """Seven clips a class as H.264 files."""
    from lvdd_assets.distill.demo import FPS, render_clip
    from lvdd_assets.distill.video import write_clip

    for split, count, start in (("train", 5, 0), ("test", 2, 100)):
        for motion in CLASSES:
            (folder / "videos" / split / motion).mkdir(parents=True)
            for index in range(count):
                path = folder / "videos" / split / motion / f"{motion}_{index:03d}.mp4"
                write_clip(path, render_clip(motion, seed=start + index), fps=FPS)
    (folder / "datasets.yaml").write_text(REGISTRY)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if _timeless(name, one) != _timeless(name, other))


def _timeless(name: str, taken: dict[str, Any]) -> Any:
    """What was stored, without what it took: seconds and bytes of memory are in the report and nowhere else."""
    value = taken.get(name)
    if value is None or not name.startswith("eval_report "):
        return value
    if name.endswith("report.html"):
        return "the page"
    if name.endswith("scores.csv"):
        head, *rows = (line.split(",") for line in value.decode().splitlines())
        return [[cell for cell, of in zip(row, head, strict=True) if of != "seconds"] for row in (head, *rows)]
    if name.endswith(" mark"):
        mark = json.loads(value)
        with_times = ("report.html", "scores.csv")
        mark["files"] = {path: hash for path, hash in mark["files"].items() if not path.endswith(with_times)}
        for score in mark["metrics"]["scores"]:
            del score["seconds"]
        return mark
    return value


@dataclass
class Row:
    """What became of one step's kills."""

    by_clock: int = 0
    at_operation: int = 0
    in_commit: int = 0
    replaced: int = 0


class Chain:
    """Many attempts at the chain in one folder, and what they came to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.bed, self.random = Bed(folder), random.Random(seed)
        self.log, self.whereabouts = folder / "victim.log", Whereabouts()
        self.names: list[str] = []
        self.rows: dict[str, Row] = {}
        self.survived = 0
        self.seconds = 0.0
        self.figures: list[tuple[float, int, list[int]]] = []

    def prepare(self) -> None:
        """Two undisturbed runs: one that says what is to be imported, and one that the kills are aimed by. Their
        results are the same."""
        run_apart(functools.partial(render, self.bed.folder), self.log)
        modules = run_apart(self._first_run, self.log)
        self.expected = run_apart(self.bed.photograph, self.log)
        (self.bed.root).rename(self.bed.folder / "reference")
        for module in (name for name in modules if "torchao" not in name and "quantizers" not in name):
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
            raise BrokenPromiseError("this process has threads, and forks of it may hang")
        steps = self.bed.pipeline().steps
        for step in steps:
            _ = step.code_version  # of the source as it is now, whatever is edited meanwhile
        self.names = [step.name for step in steps]
        self.rows = {name: Row() for name in self.names}
        watch = Watch(str(self.bed.root), self.whereabouts)
        start = time.monotonic()
        self.figures = run_apart(functools.partial(self.bed.run, watch), self.log)
        self.seconds = time.monotonic() - start
        other = differences(self.expected, run_apart(self.bed.photograph, self.log))
        if other:
            raise BrokenPromiseError(f"two undisturbed runs differ in {other}")

    def _first_run(self) -> list[str]:
        self.bed.run(Watch(str(self.bed.root), self.whereabouts))
        return list(sys.modules)

    def kill_some(self, count: int) -> None:
        """Until so many runs were killed."""
        done = 0
        while done < count:
            before = run_apart(self.bed.look, self.log)
            index = done % len(self.names)
            how = self.random.choice(("forced", "forced", "removed", "unmarked", "exchanged"))
            removed = set()
            if how == "exchanged":
                run_apart(self.bed.exchange_video, self.log)
            elif how != "forced":
                run_apart(functools.partial(self.bed.spoil, index, how), self.log)
                removed = {name for name in before if name.startswith(f"{self.names[index]} ")}
            if self.names[index] == "eval_report" and self.random.random() < 0.5:
                shutil.rmtree(self.bed.root / "scores", ignore_errors=True)
            killed = self._attempt(index, forced=how == "forced")
            after = run_apart(self.bed.look, self.log)
            lost = before.keys() - after.keys() - removed
            if lost:
                raise BrokenPromiseError(f"no longer stored after a kill: {sorted(lost)}")
            if killed is None:
                self.survived += 1
                continue
            done += 1
            row = self.rows[self.names[killed]]
            row.in_commit += self.whereabouts.commits
            row.replaced += sum(after[name] != version for name, version in before.items() if name in after)

    def _attempt(self, index: int, *, forced: bool) -> int | None:
        """One run that is to die in a step; in which it did."""
        seconds, operations, committing = self.figures[index]
        kind = self.random.choice(("clock", "clock", "operation", "commit"))
        watch = Watch(str(self.bed.root), self.whereabouts)
        if kind == "operation":
            at = self.random.randint(1, operations)
            watch.kill_in, watch.kill_at = index, lambda number, _: number >= at
        if kind == "commit":
            at = self.random.randint(1, max(1, len(committing)))
            watch.kill_in, watch.kill_at = index, lambda _number, _commits: len(watch.committing) >= at
        self.whereabouts.set(-1, 0, False)
        pid, _ = fork(functools.partial(self.bed.run, watch, index if forced else -1), self.log)
        status = self._kill_by_clock(pid, index, seconds) if kind == "clock" else os.waitpid(pid, 0)[1]
        if status == 0:
            return None
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise BrokenPromiseError(f"a run after kills failed:\n{self.log.read_text()[-3000:]}")
        step = max(0, self.whereabouts.step)
        row = self.rows[self.names[step]]
        if kind == "clock":
            row.by_clock += 1
        else:
            row.at_operation += 1
        return step

    def _kill_by_clock(self, pid: int, index: int, seconds: float) -> int:
        """Waits for the step, then for some of its time."""
        while self.whereabouts.step < index:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.001)
        time.sleep(self.random.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def finish(self) -> Counter[str]:
        """An undisturbed run over what the killed ones left; how many leftovers each step had."""
        first = self.bed.folder / "videos/train/grow/grow_000.mp4"
        second = first.with_name("grow_001.mp4")
        if first.stat().st_ino > second.stat().st_ino:  # renders are written in their order
            self.bed.exchange_video()
        run_apart(functools.partial(self.bed.run, Watch(str(self.bed.root), self.whereabouts)), self.log)
        other = differences(self.expected, run_apart(self.bed.photograph, self.log))
        if other:
            raise BrokenPromiseError(f"not what an undisturbed run stores: {other}")
        swept: Counter[str] = run_apart(self.bed.sweep, self.log)
        other = differences(self.expected, run_apart(self.bed.photograph, self.log))
        if other:
            raise BrokenPromiseError(f"sweeping changed {other}")
        return swept

    def kill_pools(self, count: int, marker: str) -> float:
        """Kills runs with a pool of two processes; the longest time that one of those outlived its run."""
        longest = 0.0
        bed = Bed(self.bed.folder, num_workers=2)
        for number in range(count):
            index = number % 4  # the steps by class
            self.whereabouts.set(-1, 0, False)
            pid, _ = fork(functools.partial(bed.run, Watch(str(bed.root), self.whereabouts), index), self.log)
            # The pool takes some seconds to start, and then the step its own time.
            status = self._kill_by_clock(pid, index, 5 + self.figures[index][0])
            if status != 0 and not os.WIFSIGNALED(status):
                raise BrokenPromiseError(f"a run after kills failed:\n{self.log.read_text()[-3000:]}")
            longest = max(longest, wait_for_none(marker, 10))
            run_apart(self.bed.look, self.log)
        return longest


def kill_chain(kills: int, pool_kills: int, seed: int, marker: str) -> None:
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        chain = Chain(Path(folder), seed)
        os.environ["TMPDIR"] = str(Path(folder) / "tmp")
        tempfile.tempdir = None
        (Path(folder) / "tmp").mkdir()
        start = time.monotonic()
        chain.prepare()
        chain.kill_some(kills)
        swept = chain.finish()
        print("| step | kills | by the clock | at a file operation | of them in a commit | leftovers swept |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, row in chain.rows.items():
            total = row.by_clock + row.at_operation
            print(f"| {name} | {total} | {row.by_clock} | {row.at_operation} | {row.in_commit} | {swept[name]} |")
        rows = chain.rows.values()
        print(
            f"| all | {sum(row.by_clock + row.at_operation for row in rows)} | {sum(row.by_clock for row in rows)} "
            f"| {sum(row.at_operation for row in rows)} | {sum(row.in_commit for row in rows)} | {swept.total()} |"
        )
        print(
            f"\n{chain.survived} attempts ended before their kill; {sum(row.replaced for row in rows)} partitions were "
            f"replaced by killed runs. All was whole after every kill, and the result is that of an undisturbed run "
            f"({chain.seconds:.0f} s). {time.monotonic() - start:.0f} s in all, {len(os.sched_getaffinity(0))} cores."
        )
        orphans = wait_for_none(marker, 10)
        print(f"No process was left {orphans:.1f} s after the last.", flush=True)
        if pool_kills:
            longest = chain.kill_pools(pool_kills, marker)
            swept = chain.finish()
            print(
                f"\n{pool_kills} runs with a pool of 2 processes killed: {swept.total()} leftovers swept, the result "
                f"is the same; no process outlived its run by more than {longest:.1f} s."
            )


# The stores --------------------------------------------------------------------------------------------------------

ROWS = 40


def write_for_ever(root: Path, seed: int) -> None:
    """Rewrites one partition of each kind of store; every version is made of one number alone."""
    import numpy as np

    from lvdd_assets.distill.file_stores import FileStore
    from lvdd_assets.distill.stores import ZarrStore

    arrays, files = ZarrStore(root, "arrays"), FileStore(root, "files")
    for number in range(seed * 1000, seed * 1000 + 1000):
        named: dict[str, Any] = {"settings": {}, "inputs": {}}
        with arrays.write("set/one", f"{number}", **named) as out:
            out.append("rows", np.full((ROWS, 3, 5), number))
            out.put("whole", np.full(1000, number))
            out.metrics = {"number": number}
        content = {name: f"{number}".encode() * 500 for name in ("a.txt", "b.txt")}
        files.write("set", f"{number}", files=content, metrics={"number": number}, **named)


def read_for_ever(root: Path, stop: Path) -> tuple[int, int]:
    """Reads both all the time: how often it did, and how often it saw another number than before.

    Raises:
        BrokenPromiseError: something was seen that no writer has finished.
    """
    from lvdd_assets.distill.commits import ReplacedError, StoreError
    from lvdd_assets.distill.file_stores import FileStore
    from lvdd_assets.distill.stores import ZarrStore

    arrays, files = ZarrStore(root, "arrays"), FileStore(root, "files")
    num_reads, seen = 0, set()
    while not stop.exists():
        with suppress(ReplacedError):
            partition = arrays.open("set/one")
            number = partition.commit.metrics["number"]
            found = {*partition.read("rows").ravel().tolist(), *partition.read("whole").tolist()}
            if found != {number}:
                raise BrokenPromiseError(f"array of {found} under the mark of {number}")
            num_reads += 1
            seen.add(number)
        stored = files.state_of("set")
        if stored.commit is None and stored.damage and files.state_of("set").version == stored.version:
            raise BrokenPromiseError(f"files: {stored.damage}")
        with suppress(FileNotFoundError, StoreError):  # of a version that was replaced between mark and file
            texts = {files.read("set", name)[:200] for name in ("a.txt", "b.txt")}
            num_reads += len(texts) > 0
    return num_reads, len(seen)


def look_at_stores(root: Path) -> tuple[int, int]:
    """The numbers that are stored.

    Raises:
        BrokenPromiseError: one of them is not whole.
    """
    import numpy as np

    from lvdd_assets.distill.file_stores import FileStore
    from lvdd_assets.distill.stores import ZarrStore

    arrays, files = ZarrStore(root, "arrays"), FileStore(root, "files")
    arrays.verify("set/one")
    files.verify("set")
    partition = arrays.open("set/one")
    number = partition.commit.metrics["number"]
    rows, whole = partition.read("rows"), partition.read("whole")
    if rows.shape != (ROWS, 3, 5) or not np.all(rows == number) or not np.all(whole == number):
        raise BrokenPromiseError(f"the arrays are not those of {number}")
    commit = files.commit_of("set")
    for name in ("a.txt", "b.txt"):
        if commit is None or files.read("set", name) != f"{commit.metrics['number']}".encode() * 500:
            raise BrokenPromiseError(f"{name} is not what was written")
    return number, commit.metrics["number"] if commit is not None else -1


def kill_stores(kills: int, seed: int) -> None:
    import numpy  # noqa: F401

    from lvdd_assets.distill import file_stores, leftovers, stores  # noqa: F401

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        root, log, stop = Path(folder) / "data", Path(folder) / "writer.log", Path(folder) / "stop"
        start, progress, in_commit = time.monotonic(), 0, 0
        whereabouts = Whereabouts()
        reader, result = -1, stop
        for number in range(kills):

            def victim(number: int = number) -> tuple[int, int]:
                found = look_at_stores(root) if number else (0, 0)
                watch = Watch(str(root), whereabouts)
                watch.begin(0)
                sys.addaudithook(watch)
                write_for_ever(root, number + 1)
                return found

            whereabouts.set(-1, 0, False)
            pid, _ = fork(victim, log)
            # Until it has found all whole; the first time, until there is something to be read.
            while whereabouts.step < 0 or not (root / "files/set.commit.json").exists():
                if os.waitpid(pid, os.WNOHANG)[0]:
                    raise BrokenPromiseError(f"after {number} kills:\n{log.read_text()[-2000:]}")
                time.sleep(0.001)
            if reader < 0:
                reader, result = fork(functools.partial(read_for_ever, root, stop), Path(folder) / "reader.log")
            before = (root / "arrays.zarr/set/one/zarr.json").read_bytes()
            time.sleep(draw.uniform(0.0, 0.15))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            in_commit += whereabouts.commits
            progress += (root / "arrays.zarr/set/one/zarr.json").read_bytes() != before
        run_apart(functools.partial(look_at_stores, root), log)
        stop.touch()
        if os.waitpid(reader, 0)[1] != 0:
            raise BrokenPromiseError(f"the reader failed:\n{(Path(folder) / 'reader.log').read_text()[-2000:]}")
        num_reads, num_seen = pickle.loads(result.read_bytes())

        def sweep() -> int:
            from lvdd_assets.distill.file_stores import FileStore
            from lvdd_assets.distill.leftovers import find_leftovers
            from lvdd_assets.distill.stores import ZarrStore

            found = [
                one
                for store in (ZarrStore(root, "arrays"), FileStore(root, "files"))
                for one in find_leftovers(store, lambda _: True, older_than=60, now=time.time() + 7200)
            ]
            for one in found:
                one.remove()
            kept = [path.parent.name for path in root.rglob("v-*") if path.is_dir()]
            if sorted(kept) != ["one", "set"]:
                raise BrokenPromiseError(f"versions left after sweeping: {kept}")
            return len(found)

        swept = run_apart(sweep, log)
        run_apart(functools.partial(look_at_stores, root), log)
        print(
            f"{kills} writers killed, {in_commit} of them in a commit, {progress} had stored something; a reader read "
            f"{num_reads} complete partitions of {num_seen} versions meanwhile; {swept} leftovers swept. "
            f"{time.monotonic() - start:.1f} s."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("chain", "stores"), nargs="?", default="chain")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pool-kills", type=int, default=10, help="of runs with a pool of two processes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    marker = f"{os.getpid()}-{time.time_ns()}"
    os.environ[MARKER] = marker
    try:
        if options.what == "stores":
            kill_stores(options.kills, options.seed)
        else:
            # Partition definitions are built when the package is imported, so the registry is named before.
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as registry:
                registry.write(REGISTRY)
                registry.flush()
                os.environ["LVDD_DATASETS"] = registry.name
                import torch

                torch.set_num_threads(1)
                kill_chain(options.kills, options.pool_kills, options.seed, marker)
    except BrokenPromiseError as error:
        print(f"seed {options.seed}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
