"""Every way of launching skips what is fresh and says so of each partition: the command line, a backfill from the UI,
the schedule, the sensor, the automation conditions. Each goes through the very code that Dagster's command, webserver
and daemon run; the daemon's loops are turned by hand, and its runs are executed in this process.
"""

import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster._time import get_current_datetime

from tests.conftest import CLASS_ASSETS, QUICK, Chain, _make

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
KEYS = ("tiny/grow", "tiny/move_left")
DATASET_ASSETS = ("quantized_vae", "release", "eval_report")
BY_CLASS = {f"{asset} {key}": True for asset in CLASS_ASSETS for key in KEYS}
BY_DATASET = {f"{asset} tiny": True for asset in DATASET_ASSETS}

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAFAKEFAKEFAKE0001",
    "AWS_SECRET_ACCESS_KEY": "fakesecret/K7MDENG+bPxRfiCYfakekey",
    "AWS_SESSION_TOKEN": "fakesessiontoken-4f1c",
    "HF_TOKEN": "hf_fakefakefakefakefake",
    "DAGSTER_CLOUD_API_TOKEN": "agent:fake:a1b2c3d4e5",
}


@dataclass
class Project:
    """A folder like the project's own, over a tiny dataset."""

    chain: Chain

    @property
    def folder(self) -> Path:
        return self.chain.workspace.registry.parent

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LVDD_DATASETS": str(self.chain.workspace.registry),
            "LVDD_DATA_ROOT": str(self.chain.workspace.data_root),
            "LVDD_WORKERS": "1",
        }

    def command(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs one of the installed commands in the folder."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
            **self.environment,
            **more,
        }
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def materialize(self, select: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        words = ("--select", select, "--partition", "tiny", "-m", "lvdd_assets.definitions", *options)
        return self.command("dagster", "asset", "materialize", *words, **more)


@dataclass
class Dagster:
    """The instance, the webserver and the daemon of a project, in this process."""

    project: Project
    context: WorkspaceProcessContext
    seen: set[str]

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.context.instance

    def ask(self, query: str, **variables: Any) -> Any:
        """What the UI asks the webserver."""
        from dagster_webserver.webserver import DagsterWebserver
        from starlette.testclient import TestClient

        client = TestClient(DagsterWebserver(self.context).create_asgi_app())
        answer = client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def remote(self, kind: str, name: str) -> Any:
        """A sensor or schedule, as the daemon sees it."""
        (location,) = self.context.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        return getattr(repository, f"get_{kind}")(name)

    def dequeue(self) -> None:
        """Lets the run queue's daemon launch what may run now; runs end before it returns."""
        list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(self.context))

    def run_backfills(self) -> None:
        """Lets the backfill's daemon work until all backfills are done."""
        for _ in range(10):
            if not self.instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
                return
            assert not [error for error in execute_backfill_iteration(self.context, _LOG) if error]
            self.dequeue()
        raise AssertionError("a backfill does not come to an end")

    def tick_sensors(self, later: float = 0.0) -> str:
        """Evaluates all sensors that are on; what new_clips said if it skipped."""
        with freeze_time(datetime.now(UTC) + timedelta(seconds=later)):
            errors = [error for error in execute_sensor_iteration(self.context, _LOG, None, None) if error]
        assert not errors
        sensor = self.remote("sensor", "new_clips")
        ticks = self.instance.get_ticks(sensor.get_remote_origin_id(), sensor.selector_id, limit=1)
        return str(ticks[0].skip_reason) if ticks else ""

    def new_runs(self) -> list[dg.DagsterRun]:
        """Runs that have come since this was asked last; all of them must have ended well."""
        runs = [run for run in self.instance.get_runs() if run.run_id not in self.seen]
        self.seen |= {run.run_id for run in runs}
        assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in runs), [(run.status, run.tags) for run in runs]
        return sorted(runs, key=lambda run: run.job_name)

    def told(self, runs: Sequence[dg.DagsterRun]) -> dict[str, bool | str]:
        """What runs said of each partition: True if it was cached, else why it was computed."""
        told: dict[str, bool | str] = {}
        for run in runs:
            for log in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                materialization = log.asset_materialization
                assert materialization is not None
                this = f"{materialization.asset_key.to_user_string()} {materialization.partition}"
                metadata = materialization.metadata
                told[this] = metadata["cached"].value or str(metadata["reason"].value)
        return told

    def stale_status(self, asset: str, key: str) -> str:
        """What the UI shows of a partition."""
        query = """query ($key: AssetKeyInput!, $partition: String) {
            assetNodeOrError(assetKey: $key) { ... on AssetNode { staleStatus(partition: $partition) } } }"""
        return self.ask(query, key={"path": [asset]}, partition=key)["assetNodeOrError"]["staleStatus"]


_LOG = logging.getLogger("daemon of the tests")
_DEFINITIONS = "from lvdd_assets.definitions import build_definitions\n\ndefs = build_definitions()\n"


@contextmanager
def _dagster(project: Project) -> Iterator[Dagster]:
    """Reads the project's own dagster.yaml; only that runs are executed in this process is different."""
    launcher = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
    ref = InstanceRef.from_dir(str(project.folder), overrides={"run_launcher": launcher})
    file = project.folder / f"definitions_{project.folder.parent.name.replace('-', '_')}.py"
    file.write_text(_DEFINITIONS)
    origin = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(file), attribute="defs")
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="lvdd"))
    with (
        dg.DagsterInstance.from_ref(ref) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        yield Dagster(project, context, {run.run_id for run in instance.get_runs()})


@pytest.fixture(scope="module")
def done(rendered_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project in which the command line has run the whole chain with secrets in its environment; what it said."""
    folder = tmp_path_factory.mktemp("routes") / "project"
    shutil.copytree(rendered_videos, folder / "videos")
    for file in (folder / "videos").rglob("*.mp4"):
        os.utime(file, (time.time() - 3600, time.time() - 3600))  # the sensor waits until none has just changed
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    project, said = Project(_make(folder)), ""
    config = json.dumps({"ops": {name: {"config": values} for name, values in QUICK.items()}})
    for select, options in (("*hosvd_cores", ()), (",".join(DATASET_ASSETS), ("--config-json", config))):
        result = project.materialize(select, *options, **SECRETS)
        said += result.stdout + result.stderr
        assert result.returncode == 0, said
    return project, said


@pytest.fixture
def project(done: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy in which everything is fresh."""
    folder = tmp_path / "project"
    shutil.copytree(done[0].folder, folder)
    copy = Project(_make(folder))
    for name, value in copy.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return copy


@pytest.fixture
def dagster(project: Project) -> Iterator[Dagster]:
    with _dagster(project) as dagster:
        yield dagster


def test_the_command_line(project: Project) -> None:
    result = project.materialize("*hosvd_cores")
    assert result.returncode == 0, result.stdout + result.stderr
    with _dagster(project) as dagster:
        latest = dagster.instance.get_runs(limit=1)
        assert dagster.told(latest) == BY_CLASS
        first = dagster.instance.get_runs()[-1]
        assert dagster.told([first]) == dict.fromkeys(BY_CLASS, "never made")


def test_a_backfill_from_the_ui_is_one_run_and_computes_nothing(dagster: Dagster) -> None:
    query = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
        __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
    for assets, keys, expected in ((CLASS_ASSETS, KEYS, BY_CLASS), (DATASET_ASSETS[:2], ("tiny",), BY_DATASET)):
        params = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": list(keys)}
        answer = dagster.ask(query, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        dagster.run_backfills()
        backfill = dagster.instance.get_backfill(answer["backfillId"])
        assert backfill is not None
        assert backfill.status.value == "COMPLETED_SUCCESS"
        runs = dagster.new_runs()
        assert len(runs) == 1
        assert dagster.told(runs) == {f"{asset} {key}": expected[f"{asset} {key}"] for asset in assets for key in keys}


def test_the_schedule_runs_both_jobs_in_their_order(dagster: Dagster) -> None:
    schedule = dagster.remote("schedule", "nightly")
    assert not schedule.get_current_instigator_state(None).is_running
    dagster.instance.start_schedule(schedule)
    dagster.tick_sensors()  # of release_after_classes, which is on, and begins with what comes from now on
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=2, minute=0, second=5)
    with freeze_time(tomorrow):
        for _ in range(2):  # a daemon that starts again within the minute asks for nothing twice
            errors = list(launch_scheduled_runs(dagster.context, _LOG, get_current_datetime(), iteration_times={}))
            assert not [error for error in errors if error]
    dagster.dequeue()
    runs = dagster.new_runs()
    assert [run.job_name for run in runs] == ["distill_classes"]
    assert dagster.told(runs) == BY_CLASS
    dagster.tick_sensors(later=60)
    dagster.dequeue()
    runs = dagster.new_runs()
    assert [run.job_name for run in runs] == ["release_dataset"]
    assert dagster.told(runs) == BY_DATASET  # with the settings that eval_report was made with, not the defaults
    dagster.tick_sensors(later=120)
    dagster.dequeue()
    assert dagster.new_runs() == []  # one release a night


def test_the_sensor_on_clips(dagster: Dagster) -> None:
    """A clip that is gone: its class, then the release, then nothing."""
    videos = dagster.project.chain.videos
    sensor = dagster.remote("sensor", "new_clips")
    assert not sensor.get_current_instigator_state(None).is_running
    dagster.instance.start_sensor(sensor)
    assert dagster.tick_sensors() == "tiny: nothing is stale"
    (videos / "train/grow/grow_004.mp4").unlink()
    said = dagster.tick_sensors(later=120)
    assert dagster.tick_sensors(later=240) == (
        "tiny: distill_classes was asked for tiny/grow already, and is at work or has failed"
    )
    dagster.dequeue()
    runs = dagster.new_runs()
    assert [run.job_name for run in runs] == ["distill_classes"], said
    told = dagster.told(runs)
    assert told.pop("raw_clips tiny/grow") == "files changed"
    assert set(told) == {f"{asset} tiny/grow" for asset in CLASS_ASSETS[1:]}
    assert all(reason is not True for reason in told.values())
    dagster.tick_sensors(later=360)
    dagster.dequeue()
    runs = dagster.new_runs()
    assert [run.job_name for run in runs] == ["release_dataset"]
    assert set(dagster.told(runs)) == set(BY_DATASET)
    assert dagster.tick_sensors(later=480) == "tiny: nothing is stale"
    dagster.dequeue()
    assert dagster.new_runs() == []


def test_automation_conditions(dagster: Dagster) -> None:
    """Off until turned on; then what Dagster starts because something upstream was materialized is found fresh."""
    sensor = dagster.remote("sensor", "default_automation_condition_sensor")
    assert not sensor.get_current_instigator_state(None).is_running
    dagster.instance.start_sensor(sensor)
    daemon = AssetDaemon(settings={}, pre_sensor_interval_seconds=30)

    def tick(later: float) -> list[dg.DagsterRun]:
        with freeze_time(datetime.now(UTC) + timedelta(seconds=later)):
            daemon._run_iteration_impl(dagster.context, None, {}, {})
        dagster.run_backfills()
        dagster.dequeue()
        return dagster.new_runs()

    assert tick(0) == []
    assert dagster.project.materialize("raw_clips").returncode == 0
    assert dagster.told(dagster.new_runs()) == {f"raw_clips {key}": True for key in KEYS}
    below = {this: fresh for this, fresh in BY_CLASS.items() if not this.startswith("raw_clips")}
    assert dagster.told(tick(60)) == below | BY_DATASET


def _launch(dagster: Dagster, asset: str, key: str) -> None:
    """What the UI's button Materialize does for one partition."""
    query = """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
        __typename ... on PythonError { message } } }"""
    selector = {
        "repositoryLocationName": "lvdd",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": [asset]}],
        "assetCheckSelection": [],
    }
    tags = [{"key": "dagster/partition", "value": key}]
    params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    answer = dagster.ask(query, params=params)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    dagster.dequeue()


def test_the_ui_agrees_that_partitions_run_one_by_one_are_fresh(dagster: Dagster) -> None:
    """And goes on agreeing when they are run again, which gives the same data version."""
    for _ in range(2):
        for asset in CLASS_ASSETS:
            _launch(dagster, asset, "tiny/grow")
        assert set(dagster.told(dagster.new_runs()).values()) == {True}
        assert [dagster.stale_status(asset, "tiny/grow") for asset in CLASS_ASSETS] == ["FRESH"] * 4
    # Also where a run of the last one has refreshed those above.
    (dagster.project.chain.videos / "train/grow/grow_004.mp4").unlink()
    _launch(dagster, "hosvd_cores", "tiny/grow")
    told = dagster.told(dagster.new_runs())
    assert set(told) == {f"{asset} tiny/grow" for asset in CLASS_ASSETS}
    assert True not in told.values()
    assert [dagster.stale_status(asset, "tiny/grow") for asset in CLASS_ASSETS] == ["FRESH"] * 4


def test_no_secret_is_in_what_is_stored_logged_or_released(done: tuple[Project, str]) -> None:
    project, said = done
    secrets = [value.encode() for value in SECRETS.values()]
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    names = [path.relative_to(project.folder).as_posix() for path in files]
    for part in ("data/release/", "data/eval_report/", "data/.dagster/storage/", "data/raw_clips.zarr/"):
        assert any(name.startswith(part) for name in names), f"nothing below {part}: this looks in the wrong place"
    assert any(name.startswith("data/.dagster/logs/") for name in names)
    for place, content in [("stdout", said.encode()), *((str(path), path.read_bytes()) for path in files)]:
        assert not [secret for secret in secrets if secret in content], place


@pytest.mark.parametrize("url", ["s3://AKIAFAKE:{secret}@bucket/prefix", "s3://bucket/prefix?secret={secret}"])
def test_a_data_root_with_credentials_in_its_url_is_refused_without_repeating_them(project: Project, url: str) -> None:
    secret = "fakesecret-K7MDENG-in-a-url"
    result = project.materialize("raw_clips", LVDD_DATA_ROOT=url.format(secret=secret))
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "URL with credentials in it" in said
    assert secret not in said
    assert not [path for path in project.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_ui_listens_on_this_machine_alone(project: Project) -> None:
    """`make ui`, looked at from outside: every socket that it or a child of it listens on."""
    command = _command_of_make_ui()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [str(BIN / command[0]), *command[1:], "--port", str(port)],
        cwd=project.folder,
        env={**{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}, **project.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while ("127.0.0.1", port) not in (listening := _listening(server.pid)):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, listening
            time.sleep(0.3)
        assert {host for host, _ in listening} <= {"127.0.0.1", "::1"}
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        server.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        server.wait()


def _command_of_make_ui() -> list[str]:
    printed = subprocess.run(
        ["make", "--dry-run", "--assume-old=setup", "--assume-old=.venv/.installed", "ui"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in printed.splitlines() if "dagster dev" in line]
    return shlex.split(line.strip().removeprefix("@").removeprefix(".venv/bin/"))


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process and its children accept connections; sockets of the file system have none."""
    found = set()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found |= {tuple(one.laddr) for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found
