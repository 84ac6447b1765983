"""Dagster's own storage on a PostgreSQL server that the test starts: events of the tiny chain are written and read."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lvdd_assets import definitions
from lvdd_assets.partitions import BY_CLASS
from tests.conftest import MakeChain, failure

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
USER = "lvdd"


def _programs() -> Path | None:
    """The newest installed server's folder of programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    program = found[-1] if found else shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def _owner() -> str | None:
    """As whom the server runs: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on 127.0.0.1 that wants a password, named by this process's environment; gives the password."""
    programs, owner = _programs(), _owner()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    password = secrets.token_hex(16)
    folder = Path(tempfile.mkdtemp(prefix="lvdd-pg-"))  # not below pytest's, which is closed to other users
    try:
        (folder / "password").write_text(password)
        if owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, owner)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = str(folder / "data")

        def call(program: str, *words: str) -> None:
            command = [str(programs / program), *words]
            done = subprocess.run(command, cwd=folder, user=owner, capture_output=True, text=True, check=False)
            log = folder / "log"
            assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")

        words = ("--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync", "--encoding", "UTF8")
        call("initdb", "-D", data, "--username", USER, *words)
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        call("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            for name, value in {
                "DAGSTER_PG_HOST": "127.0.0.1",
                "DAGSTER_PG_PORT": str(port),
                "DAGSTER_PG_USER": USER,
                "DAGSTER_PG_PASSWORD": password,
                "DAGSTER_PG_DB": "postgres",
            }.items():
                monkeypatch.setenv(name, value)
            yield password
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _documented_storage() -> str:
    """The part of docs/scale.md that goes into dagster.yaml in place of its own `storage`."""
    text = (REPOSITORY / "docs/scale.md").read_text()
    part = text[text.index("storage:\n  postgres:") :]
    return part[: part.index("```")]


def test_events_are_written_to_and_read_from_postgresql(
    server: str, make_chain: MakeChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    settings = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    settings |= yaml.safe_load(_documented_storage())
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    chain = make_chain()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = dg.materialize(
            [*definitions.defs.assets],
            selection=["raw_clips"],
            instance=instance,
            resources={"pipeline": chain.pipeline},
            tags=dict(BY_CLASS.get_tags_for_partition_key("tiny")),
            raise_on_error=False,
        )
        assert result.success, failure(result)
    with dg.DagsterInstance.from_config(str(home)) as another:
        key = dg.AssetKey("raw_clips")
        assert another.get_materialized_partitions(key) == {"tiny/grow", "tiny/move_left"}
        event = another.get_latest_materialization_event(key)
        assert event is not None
        assert event.run_id == result.run_id
        assert another.get_run_by_id(result.run_id).is_success  # type: ignore[union-attr]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if server.encode() in path.read_bytes()]
    assert not [path for path in written if path.suffix == ".db" and path.name in ("runs.db", "schedules.db")]
