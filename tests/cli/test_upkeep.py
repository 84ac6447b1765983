"""`lvdd stale`, `lvdd verify`, `lvdd gc` on a finished chain."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lvdd_assets.cli import main
from tests.cli.entering import enter
from tests.conftest import Chain, MakeChain, metadata


def _lvdd(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


@pytest.fixture
def chain(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> Chain:
    chain = finished()
    enter(chain, monkeypatch)
    return chain


QUICK_CONFIG = "ops:\n  eval_report:\n    config: {epochs: 1, batch_size: 4, rivals: [video], force: true}\n"


def test_stale_says_what_would_run_and_why(chain: Chain, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(QUICK_CONFIG)
    fresh = _lvdd("stale", "tiny", "--config", str(config), "--check")
    assert (fresh.exit_code, fresh.output) == (0, "tiny: all fresh\n")
    # A run without config has defaults, the report was made with others.
    result = _lvdd("stale", "tiny", "--check")
    assert result.exit_code == 1
    assert "tiny: 1 of 11 partitions are stale" in result.output
    assert "eval_report  tiny  config batch_size 4 → null; config epochs 1 → null; config rivals" in result.output
    next((chain.videos / "train/grow").iterdir()).unlink()
    result = _lvdd("stale", "tiny", "--config", str(config))
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines == [
        "tiny: 7 of 11 partitions are stale",
        "raw_clips tiny/grow files changed",
        "latents tiny/grow raw_clips will be made anew",
        "dpp_subsets tiny/grow raw_clips, latents will be made anew",
        "hosvd_cores tiny/grow raw_clips, latents, dpp_subsets will be made anew",
        "quantized_vae tiny raw_clips tiny/grow, dpp_subsets tiny/grow, hosvd_cores tiny/grow will be made anew",
        "release tiny hosvd_cores tiny/grow, quantized_vae will be made anew",
        "eval_report tiny raw_clips tiny/grow, latents tiny/grow, dpp_subsets tiny/grow, quantized_vae, release will "
        "be made anew",
    ]


def test_stale_for_scripts(chain: Chain) -> None:
    rows = json.loads(_lvdd("stale", "tiny", "--json").output)
    assert len(rows) == 11
    assert {row["partition"] for row in rows} == {"tiny", "tiny/grow", "tiny/move_left"}
    for row in rows:
        assert row["stale"] == bool(row["reasons"]) == (row["step"] == "eval_report")
        assert (row["fingerprint"] == row["stored_fingerprint"]) is not row["stale"]
        assert row["code_version"] == chain.pipeline.step(row["step"]).code_version
    each = _lvdd("stale", "tiny", "--each").output
    assert sum(line.endswith("fresh") for line in each.splitlines()) == 10


def test_stale_names_what_it_does_not_know(chain: Chain, tmp_path: Path) -> None:
    unknown = _lvdd("stale", "other")
    assert unknown.exit_code == 1
    assert "other" in unknown.output
    config = tmp_path / "config.yaml"
    config.write_text("ops: {hosvd_cores: {config: {stepp: 1}}}")
    assert "hosvd_cores has no config stepp; it has" in _lvdd("stale", "--config", str(config)).output
    config.write_text("[]")
    assert "is no run config" in _lvdd("stale", "--config", str(config)).output
    shutil.rmtree(chain.videos)
    assert _lvdd("stale", "tiny").exit_code == 1
    assert _lvdd("stale").exit_code == 0  # of all datasets: one that is not on this machine is said, and passed over


def test_verify_names_damage_and_the_next_run_mends_it(chain: Chain) -> None:
    whole = _lvdd("verify")
    assert (whole.exit_code, whole.output) == (0, "11 partitions are what was written, 0 are damaged\n")
    release = chain.workspace.data_root / "release/tiny.zarr.zip"
    before = release.read_bytes()
    store = chain.pipeline.step("latents").store(chain.workspace.data_root)
    chunk = next(path for path in store.folder("tiny/grow").rglob("latents/c/*/*/*/*/*"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(data)
    found = _lvdd("verify", "tiny")
    assert found.exit_code == 1
    assert "latents tiny/grow is damaged: latents/c/0/0/0/0/0 is not what was written" in found.output
    assert "10 partitions are what was written, 1 are damaged" in found.output
    assert "latents tiny/grow damaged: latents/c/0" in " ".join(_lvdd("stale", "tiny").output.split())
    result = chain.materialize("hosvd_cores", partition="tiny/grow")
    assert chain.computed(result) == {"latents tiny/grow"}
    assert metadata(result, "latents", "tiny/grow")["reason"].startswith("damaged: latents/c/0/0/0/0/0")
    assert _lvdd("verify", "tiny").exit_code == 0
    assert release.read_bytes() == before


def test_gc_lists_and_only_then_removes(chain: Chain) -> None:
    assert _lvdd("gc").output == "nothing is left over\n"
    store = chain.pipeline.step("hosvd_cores").store(chain.workspace.data_root)
    code = "from lvdd_assets.distill.commits import new_version; print(new_version())"
    version = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    half = Path(store.folder("tiny/grow")) / version
    half.mkdir()
    (half / "core").write_bytes(bytes(1500))
    listed = _lvdd("gc")
    assert f"1.50 kB  {half}  its writer has ended" in listed.output
    assert "1 leftover, 1.50 kB; `lvdd gc --delete` removes them" in listed.output
    assert half.exists()
    assert "1 leftover removed, 1.50 kB freed" in _lvdd("gc", "--delete").output
    assert not half.exists()
    assert _lvdd("verify").exit_code == 0


def test_gc_leaves_classes_of_before_unless_asked(chain: Chain) -> None:
    root = chain.workspace.data_root
    shutil.copytree(root / "latents.zarr/tiny/grow", root / "latents.zarr/old/grow")
    header = root / "latents.zarr/old/grow/zarr.json"
    header.write_text(header.read_text().replace("tiny/grow", "old/grow"))
    assert _lvdd("gc").output == "nothing is left over\n"
    assert "latents old/grow is in no registry" in _lvdd("gc", "--unregistered").output
    assert "1 leftover removed" in _lvdd("gc", "--unregistered", "--delete").output
    assert not (root / "latents.zarr/old/grow").exists()


def test_gc_takes_nothing_of_a_dataset_whose_videos_are_away(chain: Chain) -> None:
    shutil.rmtree(chain.videos)
    assert _lvdd("gc", "--unregistered").output == "nothing is left over\n"
