"""`lvdd inspect`, `lvdd compare`, `lvdd export` on files as they lie about."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result
from PIL import Image

from lvdd_assets import load_release
from lvdd_assets.cli import main
from lvdd_assets.distill.release import Release
from tests.cli.entering import enter
from tests.conftest import MakeChain

GOLDEN = Path(__file__).parents[1] / "distill" / "golden"
FILE = GOLDEN / "release-v4.zarr.zip"


def _lvdd(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_inspect_accounts_for_every_byte(finished: MakeChain) -> None:
    path = finished().workspace.data_root / "release" / "tiny.zarr.zip"
    result = _lvdd("inspect", path)
    assert result.exit_code == 0, result.output
    sizes = [int(line.split()[-2]) for line in result.output.splitlines() if line.strip().endswith("%")]
    assert sum(sizes) == path.stat().st_size
    assert "hosvd_cores tiny/grow" in result.output
    assert f"{path.stat().st_size} B of 90000 B allowed" in result.output
    document = json.loads(_lvdd("inspect", path, "--json").stdout)
    assert sum(document["parts"].values()) == document["num_bytes"] == path.stat().st_size
    assert (document["recipe"], document["autoencoder"], document["allowed_bytes"]) == ("tight", "embedded-2d", 90_000)
    assert document["provenance"]["recipe"] == "tight"
    assert document["sheet"] is None


def test_inspect_takes_a_url() -> None:
    result = _lvdd("inspect", FILE.as_uri())
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{FILE.as_uri()}: golden, 6 clips in 3 classes, 4 frames of 16×16, 3677 B\n")


def test_inspect_draws_clips(tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    result = _lvdd("inspect", FILE, "--sheet", sheet, "--clips", 1)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(f"sheet: {sheet}\n")
    with Image.open(io.BytesIO(sheet.read_bytes())) as image:
        assert image.format == "PNG"
    assert json.loads(_lvdd("inspect", FILE, "--sheet", sheet, "--json").stdout)["sheet"] == str(sheet)
    wrong = _lvdd("inspect", FILE, "--sheet", tmp_path / "sheet.jpg")
    assert wrong.exit_code == 2
    assert "ends in .png" in wrong.output


@pytest.mark.parametrize("command", ["inspect", "compare", "export"])
def test_what_is_no_release_is_said_on_stderr_alone(command: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    words = {"inspect": [path], "compare": [FILE, path], "export": [path, "--to", "hf", "--out", tmp_path / "b"]}
    result = _lvdd(command, *words[command], "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is no release" in result.stderr
    absent = _lvdd(command, tmp_path / "absent.zarr.zip")
    assert absent.exit_code == 2, absent.output
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip"]


def test_a_stranger_s_words_steer_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, **_options: object) -> Release:
        return replace(load_release(path), provenance={"made\x1b[2J": "by \x1b]0;me\x07", "inputs": {"\r": "\x9b"}})

    monkeypatch.setattr("lvdd_assets.distill.release.load_release", load)
    for words in (["inspect", FILE], ["compare", FILE, GOLDEN / "release-v3.zarr.zip"]):
        text = _lvdd(*words).output
        assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_compare_puts_files_side_by_side_and_marks_what_differs(
    finished: MakeChain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain = finished()
    enter(chain, monkeypatch)
    copy = tmp_path / "copy.zarr.zip"
    copy.write_bytes((chain.workspace.data_root / "release" / "tiny.zarr.zip").read_bytes())
    result = _lvdd("compare", copy, FILE)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["copy", "release-v4"]
    assert ["≠", "bytes", str(copy.stat().st_size), "3677"] in lines
    assert ["classes", "2", "3"] in [line[1:] for line in lines if line[:1] == ["≠"]]
    top1 = json.loads((chain.workspace.data_root / "eval_report/tiny.commit.json").read_text())["metrics"][
        "top1_release"
    ]
    assert f"top-1         {100 * top1:.1f} %" in result.output  # a copy is known by its fingerprint
    assert "updates, 4 test clips" in result.output
    assert "The provenance differs in:\n" in result.output
    assert "hosvd_cores: tiny/grow, tiny/move_left" in result.output
    same = _lvdd("compare", copy, copy)
    assert "≠" not in same.output
    assert same.output.endswith("The provenance is the same\n")
    document = json.loads(_lvdd("compare", copy, FILE, "--json").stdout)
    assert [one["file"] for one in document["releases"]] == [str(copy), str(FILE)]
    assert document["releases"][0]["scores"]["mean_top1"] == pytest.approx(top1)
    assert document["releases"][1]["scores"] is None
    assert document["differences"]["recipe"] == ["tight", None]


def test_compare_needs_two_files() -> None:
    result = _lvdd("compare", FILE)
    assert result.exit_code == 2
    assert "got 1 file: give two or more to compare" in result.output


def test_export_writes_what_the_loader_yields_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _lvdd("export", FILE, "--to", "webdataset")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("release-v4-webdataset  6 clips, ")
    shard = webdataset.WebDataset("release-v4-webdataset/train-000000.tar", shardshuffle=False).decode()
    found = sorted((sample["json"]["index"], sample["npy"]) for sample in shard)
    for (_, clip), (expected, _) in zip(found, load_release(FILE).dataset(), strict=True):
        np.testing.assert_array_equal(clip, expected.numpy())
    again = _lvdd("export", FILE, "--to", "webdataset")
    assert again.exit_code == 1
    assert "release-v4-webdataset is not empty, and nothing is overwritten" in again.output


@pytest.mark.parametrize("to", ["folder", "hf"])
def test_export_for_scripts(to: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = json.loads(_lvdd("export", FILE.as_uri(), "--to", to, "--out", out, "--json").stdout)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert document["files"] == files
    assert document["num_bytes"] == sum((out / name).stat().st_size for name in files)
    assert (document["folder"], document["to"], document["num_clips"]) == (str(out), to, 6)
