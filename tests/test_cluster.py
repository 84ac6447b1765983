"""A Dask cluster of real processes, whose workers have folders of their own and nothing of this environment."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from lvdd_assets.distill.places import parse_place
from lvdd_assets.incremental import Pipeline
from lvdd_assets.steps import StepError, Task
from tests.cluster_tasks import answer_held, compute_beside_a_killer, compute_with_pid
from tests.conftest import CLASS_ASSETS, QUICK, Chain, MakeChain
from tests.counting_chain import compute_a, make_pipeline, replace_step, run, run_all

REPOSITORY = Path(__file__).parents[1]
DASK = str(Path(sys.executable).with_name("dask"))
CLASSES = [f"c{index}" for index in range(8)]

pytestmark = pytest.mark.slow


@dataclass
class Cluster:
    """A scheduler and its workers, each in a folder of its own."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_scheduler(self, port: int = 0) -> None:
        port = port or free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        wait_until(lambda: _answers(port), "the scheduler does not come up")

    def start_worker(self, name: str, *words: str, source: Path = REPOSITORY) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-dashboard", "--name", name, *words)
        return self._start(name, "worker", self.address, *options, source=source)

    def _start(self, name: str, *words: str, source: Path = REPOSITORY) -> subprocess.Popen[bytes]:
        folder = self.folder / name
        folder.mkdir(parents=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(source), "LANG": "C.UTF-8"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([DASK, *words], cwd=folder, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()

    def workers(self) -> list[str]:
        """Addresses of those that are there."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return list(client.scheduler_info(n_workers=-1)["workers"])

    def pipeline(self, folder: Path, classes: list[str]) -> Pipeline:
        """The counting chain, whose classes this cluster computes."""
        folder.mkdir(exist_ok=True)
        local = make_pipeline(folder, classes)
        return replace(local, workspace=replace(local.workspace, scheduler=self.address))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler with two workers."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start_scheduler()
        for name in ("one", "two"):
            cluster.start_worker(name)
        yield cluster
    finally:
        cluster.stop()


def values(pipeline: Pipeline, step: str, classes: list[str]) -> list[int]:
    store = pipeline.step(step).store(pipeline.workspace.data_root)
    return [int(store.open(f"set/{name}").read("value")[0]) for name in classes]


def with_first(pipeline: Pipeline, compute: Callable[[Task], None]) -> Pipeline:
    return replace(pipeline, steps=(replace_step(pipeline.steps[0], compute=compute), *pipeline.steps[1:]))


def test_classes_are_computed_by_workers_in_other_folders_without_this_environment(
    cluster: Cluster, tmp_path: Path
) -> None:
    pipeline = with_first(cluster.pipeline(tmp_path, CLASSES), compute_with_pid)
    run_all(pipeline)
    assert values(pipeline, "a", CLASSES) == list(range(1, 9))
    assert values(pipeline, "b", CLASSES) == [2 * value for value in range(1, 9)]
    store = pipeline.step("c").store(pipeline.workspace.data_root)
    assert int(store.open("set").read("value")[0]) == 72
    made = [(tmp_path / "made" / name).read_text().split(maxsplit=1) for name in CLASSES]
    assert len({pid for pid, _ in made}) == 2
    assert str(os.getpid()) not in {pid for pid, _ in made}
    assert all(where.startswith(str(cluster.folder)) and where.endswith("False") for _, where in made)
    assert not list((tmp_path / "data").glob(".cluster-*"))
    assert all(outcome.cached for outcome in run(pipeline, "a"))


def test_two_runs_at_once_on_one_scheduler_both_produce_everything(cluster: Cluster, tmp_path: Path) -> None:
    """Their steps, classes and so their names for tasks are the same; their files are not."""
    pipelines = [cluster.pipeline(tmp_path / name, CLASSES) for name in ("left", "right")]
    (tmp_path / "right/videos/c3/one.mp4").write_text("100")
    runs = [threading.Thread(target=run_all, args=(pipeline,)) for pipeline in pipelines]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert values(pipelines[0], "b", CLASSES) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert values(pipelines[1], "b", CLASSES) == [2, 4, 6, 200, 10, 12, 14, 16]
    assert all(not one.is_stale for pipeline in pipelines for one in pipeline.plan("set"))


def test_a_killed_worker_s_class_is_made_by_another(cluster: Cluster, tmp_path: Path) -> None:
    pipeline = with_first(cluster.pipeline(tmp_path, CLASSES), compute_beside_a_killer)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_all(pipeline)
        except BaseException as error:
            failed.append(error)

    running = threading.Thread(target=work)
    running.start()
    begun = tmp_path / "begun"
    wait_until(lambda: (begun.exists() and begun.read_text() != "") or bool(failed), "nothing is begun")
    victim = int(begun.read_text())
    assert victim in {child.pid for one in cluster.processes for child in psutil.Process(one.pid).children()}
    os.kill(victim, signal.SIGKILL)
    running.join(timeout=60)
    assert not running.is_alive()
    assert failed == []
    assert values(pipeline, "b", CLASSES) == [2 * value for value in range(1, 9)]


def test_a_worker_with_other_code_is_named_and_left_out(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    for name in ("lvdd_assets", "tests"):
        shutil.copytree(REPOSITORY / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "lvdd_assets/distill/fidelity.py").open("a") as module:
        module.write("\nANOTHER = 1\n")
    pipeline = with_first(cluster.pipeline(tmp_path, CLASSES), compute_with_pid)
    cluster.start_worker("other", source=other)
    wait_until(lambda: len(cluster.workers()) == 3, "the third worker does not come up")
    assert len(run(pipeline, "a")) == 8
    made = [(tmp_path / "made" / name).read_text().split()[1] for name in CLASSES]
    assert not any(where.startswith(str(cluster.folder / "other")) for where in made)
    assert "has another version of the code of lvdd_assets.distill.fidelity" in caplog.text
    cluster.processes[-1].terminate()


def test_no_worker_with_the_same_code_is_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    pipeline = cluster.pipeline(tmp_path, CLASSES)
    pipeline = with_first(pipeline, compute_a)
    pipeline.steps[0].__dict__["code_version"] = "0123456789ab"
    with pytest.raises(StepError, match=r"no worker of tcp:.* can take part: worker tcp:.* has another version of the"):
        run(pipeline, "a")
    assert not (tmp_path / "data/a.zarr").exists()


def test_a_worker_that_does_not_see_the_data_root_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the folder lay on this machine's disk alone: what was written when the run began is not there."""
    monkeypatch.setattr("lvdd_assets.cluster.replace_bytes", lambda place, data: None)
    pipeline = cluster.pipeline(tmp_path, CLASSES)
    with pytest.raises(StepError, match=rf"does not see what .* writes to {tmp_path}/data: LVDD_DATA_ROOT must be one"):
        run(pipeline, "a")


def test_the_real_chain_on_a_cluster_makes_what_it_makes_here(cluster: Cluster, finished: MakeChain) -> None:
    """All classes anew, by workers that see no registry: the same arrays, so that the release stays fresh."""
    chain = finished()
    before = _files(chain)
    chain.workspace = replace(chain.workspace, scheduler=cluster.address)
    result = chain.materialize(*CLASS_ASSETS, config={name: {"force": True} for name in CLASS_ASSETS})
    assert chain.computed(result) == {f"{name} tiny/{one}" for name in CLASS_ASSETS for one in ("grow", "move_left")}
    assert _files(chain) == before
    assert all(not one.is_stale for one in chain.pipeline.plan("tiny", QUICK))


def _files(chain: Chain) -> dict[str, dict[str, bytes]]:
    """The bytes of all chunks that classes have, by asset."""
    found = {}
    for name in CLASS_ASSETS:
        store = chain.pipeline.step(name).store(chain.workspace.data_root)
        for key in ("tiny/grow", "tiny/move_left"):
            commit = store.commit_of(key)
            folder = store.folder(key) / commit.version
            found[f"{name} {key}"] = {file: (folder / file).read_bytes() for file in (*commit.files, *commit.chunks)}
    return found


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "127.0.0.1:{port}", "http://127.0.0.1:{port}", "host"])
def test_no_scheduler_is_one_sentence_within_seconds(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lvdd_assets.cluster._CONNECT_SECONDS", 1.0)
    cluster = Cluster(tmp_path, address.format(port=free_port()))
    pipeline = cluster.pipeline(tmp_path, CLASSES[:2])
    start = time.monotonic()
    with pytest.raises(StepError) as caught:
        run(pipeline, "a")
    assert time.monotonic() - start < 10
    assert f"no Dask scheduler answers at {cluster.address} (LVDD_DASK_SCHEDULER)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_data_root_in_memory_is_refused(tmp_path: Path) -> None:
    pipeline = Cluster(tmp_path, "tcp://127.0.0.1:1").pipeline(tmp_path, CLASSES)
    pipeline = replace(pipeline, workspace=replace(pipeline.workspace, data_root=parse_place("memory://root")))
    with pytest.raises(StepError, match="lies in the memory of this process"):
        run(pipeline, "a")


def test_a_scheduler_that_goes_away_is_one_sentence(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a class that is computed then, and for one whose answer is on its way. The last that needs the cluster."""
    monkeypatch.setattr("lvdd_assets.pool.run_task", answer_held)
    pipeline = with_first(cluster.pipeline(tmp_path, CLASSES[:2]), compute_beside_a_killer)
    asked = tmp_path / "asked"

    def kill() -> None:
        wait_until(asked.exists, "no answer is fetched")
        cluster.processes[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(StepError) as caught:
        run(pipeline, "a")
    killer.join()
    sentence = f"the Dask scheduler at {cluster.address} went away. What was finished is stored"
    assert "failed for 2 of 2 partitions" in str(caught.value)
    assert str(caught.value).count(sentence) == 2
