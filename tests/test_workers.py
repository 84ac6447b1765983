"""What a worker looks at before its first task; a cluster of real ones is in test_cluster."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lvdd_assets.distill.places import parse_place
from lvdd_assets.steps import NO_PART_IN_RESULTS
from lvdd_assets.workers import Needs, why_unfit
from tests.counting_chain import STEPS


@pytest.fixture
def needs(tmp_path: Path) -> Needs:
    token = tmp_path / "data/token"
    token.parent.mkdir()
    token.write_bytes(b"here")
    step = STEPS[0]
    return Needs(step.module, step.templates, NO_PART_IN_RESULTS, step.code_version, token, tmp_path, "launcher")


def test_the_process_that_started_the_run_is_fit(needs: Needs) -> None:
    assert why_unfit(needs) == ""
    assert why_unfit(replace(needs, videos=None)) == ""


def test_other_code_is_said_with_both_versions(needs: Needs) -> None:
    why = why_unfit(replace(needs, code="0123456789ab"))
    assert f"({needs.code}, on launcher 0123456789ab): install the same lvdd-assets there" in why


def test_a_module_or_file_that_is_not_there_is_other_code(needs: Needs) -> None:
    assert "no source for module 'lvdd_assets.gone'" in why_unfit(replace(needs, module="lvdd_assets.gone"))
    assert "No such file" in why_unfit(replace(needs, templates=(Path("/gone.html"),)))


def test_another_data_root_is_said(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvdd_assets.workers.time.sleep", lambda seconds: None)
    needs.token.unlink()
    assert f"does not see what launcher writes to {needs.token.parent}: LVDD_DATA_ROOT must be" in why_unfit(needs)


def test_a_bucket_without_credentials_is_said(needs: Needs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    why = why_unfit(replace(needs, token=parse_place("s3://bucket/data/token")))
    assert "cannot read s3://bucket/data (" in why
    assert "give the worker the credentials and the endpoint in its environment" in why


def test_videos_that_are_not_mounted_are_said(needs: Needs) -> None:
    assert "does not see the videos in /gone: mount them there" in why_unfit(replace(needs, videos=Path("/gone")))


def test_a_worker_imports_neither_dagster_nor_a_registry_to_say_no(tmp_path: Path) -> None:
    code = "import sys, lvdd_assets.workers; assert not {'dagster', 'torch', 'zarr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
