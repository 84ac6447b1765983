"""Faults, caused for real: full and read-only disks, flipped bits, vanishing files, a clock that goes back,
kills, signals.

What is left must be what was there before or what was asked for, and the next run must end as if nothing had been. The
small chain of `counting_chain` stands for the real one where the fault is in what both go through; two hundred kills
of the real one are benchmarks/kills.py.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lvdd_assets.distill.digests import DigestCache
from lvdd_assets.distill.leftovers import find_leftovers
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.steps import Outside, StepError
from tests.conftest import CLASS_ASSETS, Chain, MakeChain, failure
from tests.counting_chain import STEPS, files_of, make_pipeline, replace_step, run, run_all
from tests.forked_runs import code_of, compute_much, fork, rewrite_all, run_all_at, run_within_a_limit

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def _with_first(pipeline: Pipeline, **changes: Any) -> Pipeline:
    return replace(pipeline, steps=(replace_step(STEPS[0], **changes), *STEPS[1:]))


def _content(root: Path) -> dict[str, str]:
    """Hashes of all stored chunks, marks aside, by partition; the names of versions are left out."""
    found = {}
    for path in sorted(root.glob("*.zarr/**/c/**/*")):
        if path.is_file():
            parts = [part for part in path.relative_to(root).parts if not part.startswith("v-")]
            found["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _stale(pipeline: Pipeline) -> list[str]:
    return [f"{one.step.name} {one.task.key}" for one in pipeline.plan("set") if one.is_stale]


# Disks -------------------------------------------------------------------------------------------------------------


def _mount(*words: str) -> None:
    result = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"needs the right to mount: {result.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 300 kB of room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_what_did_not_fit_and_nothing_else(tmp_path: Path, small_disk: Path) -> None:
    classes = [f"c{number}" for number in range(8)]
    undisturbed = _with_first(make_pipeline(tmp_path, classes), compute=compute_much)
    run_all(undisturbed)
    pipeline = replace(undisturbed, workspace=replace(undisturbed.workspace, data_root=small_disk))
    with pytest.raises(StepError, match=r"no space left for .* What was stored before is still there: free some space"):
        run(pipeline, "a")
    stored = [one for one in pipeline.plan("set") if one.step.name == "a" and not one.is_stale]
    assert 0 < len(stored) < len(classes)
    for one in stored:
        ZarrStore(small_disk, "a").verify(one.task.key)
    assert not list(find_leftovers(ZarrStore(small_disk, "a"), lambda _: True, older_than=0.0, now=time.time()))
    _mount("-o", "remount,size=8m", str(small_disk))
    assert {one.key for one in run(pipeline, "a") if one.cached} == {one.task.key for one in stored}
    run_all(pipeline)
    assert _content(small_disk) == _content(undisturbed.workspace.data_root)


def test_a_limit_on_files_is_a_full_disk(tmp_path: Path) -> None:
    """As a quota is: the system refuses to make a file larger than 20 kB."""
    pipeline = _with_first(make_pipeline(tmp_path, ["x"]), compute=compute_much)
    assert code_of(fork(run_within_a_limit, pipeline, 20_000, "no space left for")) == 0
    assert _stale(pipeline)[0] == "a set/x"
    run_all(pipeline)
    assert _stale(pipeline) == []


def test_a_root_that_may_only_be_read_is_read(tmp_path: Path, small_disk: Path) -> None:
    base = make_pipeline(tmp_path, ["x", "y"])
    pipeline = replace(base, workspace=replace(base.workspace, data_root=small_disk))
    run_all(pipeline)
    _mount("-o", "remount,ro", str(small_disk))
    assert _stale(pipeline) == []
    assert all(one.cached for one in run(pipeline, "c"))
    (tmp_path / "videos/x/one.mp4").write_text("70")
    with pytest.raises(
        StepError, match=r"cannot be written to \(Read-only file system\).*mend its permissions, or set"
    ):
        run(pipeline, "a")
    assert ZarrStore(small_disk, "a").open("set/x").read("value")[0] == 1


# What is stored ----------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_named_and_its_partition_alone_made_anew(
    finished: MakeChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the real chain: what comes out is what was there, so nothing below is stale."""
    from click.testing import CliRunner

    from lvdd_assets.cli import main
    from tests.cli.entering import enter

    chain: Chain = finished()
    enter(chain, monkeypatch)
    root = chain.workspace.data_root
    (chunk,) = (
        path for path in (root / "latents.zarr/tiny/grow").rglob("*") if path.is_file() and "latents/c" in str(path)
    )
    before = chunk.read_bytes()
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 4
    chunk.write_bytes(damaged)
    said = CliRunner().invoke(main, ["verify", "tiny"])
    assert said.exit_code == 1
    assert "latents tiny/grow" in said.output
    result = chain.materialize("hosvd_cores")
    assert result.success, failure(result)
    assert chain.computed(result) == {"latents tiny/grow"}
    (chunk,) = (
        path for path in (root / "latents.zarr/tiny/grow").rglob("*") if path.is_file() and "latents/c" in str(path)
    )
    assert chunk.read_bytes() == before


def test_a_video_that_vanishes_between_index_and_read_stores_nothing(tmp_path: Path) -> None:
    """And the one that comes back is taken."""

    def listed_then_gone(spec: Any, classes: Any, data_root: Any) -> dict[str, Outside]:
        found = dict(files_of(spec, classes, data_root))
        (tmp_path / "videos/x/one.mp4").rename(tmp_path / "elsewhere")
        return found

    pipeline = make_pipeline(tmp_path, ["x", "y"])
    with pytest.raises(StepError, match=r"1 of 2 partitions; 1 finished and stored:\n  set/x: .*"):
        run(_with_first(pipeline, outside=listed_then_gone), "a")
    (tmp_path / "elsewhere").rename(tmp_path / "videos/x/one.mp4")
    assert [one for one in _stale(pipeline) if one.startswith("a")] == ["a set/x"]
    run_all(pipeline)
    assert _stale(pipeline) == []


def test_a_real_video_that_vanishes_is_named(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    from lvdd_assets.assets import raw_clips

    chain = make_chain()
    video = chain.videos / "train/grow/grow_001.mp4"
    original = raw_clips.ingest

    def vanish_then_ingest(*arguments: Any, **named: Any) -> Any:
        video.unlink(missing_ok=True)
        return original(*arguments, **named)

    monkeypatch.setattr(raw_clips, "ingest", vanish_then_ingest)
    result = chain.materialize("raw_clips")
    assert not result.success
    assert f"{video} changed while the run read it. Run again when nothing writes there." in failure(result)
    monkeypatch.undo()
    assert chain.computed(chain.materialize("raw_clips", checks=False)) == {"raw_clips tiny/grow"}


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are compared with times as they were written down, never with now; and content decides."""
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before - 400 * 24 * 3600)
    assert _stale(pipeline) == []
    root = pipeline.workspace.data_root
    assert not list(find_leftovers(ZarrStore(root, "a"), lambda _: True, older_than=0.0, now=time.time()))
    (tmp_path / "videos/x/one.mp4").write_text("33")
    assert _stale(pipeline) == ["a set/x", "b set/x", "c set"]
    run_all(pipeline)
    monkeypatch.undo()
    assert _stale(pipeline) == []
    for path in root.rglob("*"):
        os.utime(path, (before + 1e6, before + 1e6))
    assert _stale(pipeline) == []


def test_a_file_with_another_content_and_all_its_old_times_is_hashed_again(tmp_path: Path) -> None:
    """As after a clock was set back, or by a program that sets times; the time of status change nobody can set."""
    video, cache = tmp_path / "a.mp4", DigestCache(tmp_path / "digests.sqlite")
    video.write_text("1")
    os.utime(video, (1e9, 1e9))
    first = cache.digests([video])[video]
    time.sleep(0.02)
    video.write_text("2")
    os.utime(video, (1e9, 1e9))
    second = cache.digests([video])[video]
    assert first is not None
    assert second is not None
    assert first.sha256 != second.sha256
    assert first.mtime_ns == second.mtime_ns


# Processes ---------------------------------------------------------------------------------------------------------


def test_runs_killed_at_random_moments_leave_a_chain_that_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """Twenty kills of runs that rewrite everything; what is stored is whole after each."""
    classes = ["x", "y", "z"]
    undisturbed = _with_first(make_pipeline(tmp_path, classes), compute=compute_much)
    start = time.perf_counter()
    run_all(undisturbed)
    seconds = time.perf_counter() - start
    pipeline = replace(undisturbed, workspace=replace(undisturbed.workspace, data_root=tmp_path / "killed"))
    root = pipeline.workspace.data_root
    draw, killed = random.Random(5), 0
    while killed < 20:
        process = fork(rewrite_all, pipeline, classes)
        time.sleep(draw.uniform(0, 1.2 * seconds))
        process.kill()
        assert code_of(process) in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        for step in pipeline.steps:
            for key in ["set"] if step.by == "dataset" else [f"set/{name}" for name in classes]:
                assert not ZarrStore(root, step.name).state_of(key).damage
                ZarrStore(root, step.name).verify(key)
    run_all(pipeline)
    later = time.time() + 7200
    for step in pipeline.steps:
        for one in find_leftovers(ZarrStore(root, step.name), lambda _: True, older_than=0.0, now=later):
            one.remove()
    assert _content(root) == _content(undisturbed.workspace.data_root)


def test_two_runs_at_once_both_end_well(tmp_path: Path) -> None:
    """Two processes that make the same partitions, begun at the same moment."""
    classes = [f"c{number}" for number in range(6)]
    pipeline = make_pipeline(tmp_path, classes)
    undisturbed = replace(pipeline, workspace=replace(pipeline.workspace, data_root=tmp_path / "alone"))
    run_all(undisturbed)
    moment = time.monotonic() + 1.0
    processes = [fork(run_all_at, pipeline, moment) for _ in range(2)]
    assert [code_of(process) for process in processes] == [0, 0]
    assert _stale(pipeline) == []
    assert _content(pipeline.workspace.data_root) == _content(undisturbed.workspace.data_root)


MARKER = "LVDD_TEST_OF_SIGNALS"


def _with_marker(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


LVDD = ("lvdd", "run", "tiny")
DAGSTER = ("dagster", "asset", "materialize", "--select", "*hosvd_cores", "--partition", "tiny")


def _start(chain: Chain, words: Sequence[str], num_workers: int, marker: str) -> subprocess.Popen[str]:
    """A command in a folder like the project's, as the leader of a process group; all that it starts is marked."""
    folder = chain.workspace.registry.parent
    (folder / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder),
        "DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME": "lvdd_assets.definitions",
        "LVDD_DATASETS": str(chain.workspace.registry),
        "LVDD_DATA_ROOT": str(chain.workspace.data_root),
        "LVDD_WORKERS": str(num_workers),
        MARKER: marker,
    }
    return subprocess.Popen(
        [str(BIN / words[0]), *words[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "number", "to_group", "num_workers"),
    [
        (LVDD, signal.SIGTERM, False, 1),
        (LVDD, signal.SIGINT, True, 2),
        (DAGSTER, signal.SIGTERM, False, 2),
    ],
    ids=["lvdd, SIGTERM", "lvdd with a pool, Ctrl-C", "dagster with a pool, SIGTERM"],
)
def test_a_run_that_is_told_to_stop_leaves_with_what_was_finished(
    make_chain: MakeChain, words: Sequence[str], number: signal.Signals, to_group: bool, num_workers: int
) -> None:
    """A terminal sends Ctrl-C to all processes of the group, a service manager its signal to one."""
    chain = make_chain()
    root, marker = chain.workspace.data_root, f"{os.getpid()}-{time.time_ns()}"
    process = _start(chain, words, num_workers, marker)
    try:
        deadline = time.monotonic() + 120
        while not (root / "latents.zarr").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        start = time.monotonic()
        (os.killpg if to_group else os.kill)(process.pid, number)
        out, said = process.communicate(timeout=60)
        seconds = time.monotonic() - start
        assert seconds < 60
        while left := _with_marker(marker):
            assert time.monotonic() - start < 70, [one.cmdline() for one in left]
            time.sleep(0.1)
    finally:
        for one in _with_marker(marker):
            one.kill()
        process.wait()
    if words is LVDD:
        assert process.returncode == 130
        assert said == "interrupted; what was finished is stored, the next run goes on from there\n"
        assert "raw_clips      2 computed, 0 fresh" in out
    else:  # has its own way to say it
        assert process.returncode != 0
        assert "DagsterExecutionInterruptedError" in said
    for key in ("tiny/grow", "tiny/move_left"):
        ZarrStore(root, "raw_clips").verify(key)
    again = chain.computed(chain.materialize(*CLASS_ASSETS, checks=False))
    assert {f"hosvd_cores tiny/{name}" for name in ("grow", "move_left")} <= again
    assert not [one for one in again if one.startswith("raw_clips")]
