"""A folder of videos in, a file out, as a new user types it in a folder of his own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lvdd_assets import load_release
from lvdd_assets.distill.selection import DEFAULT_CLIPS, default_clips

BIN = Path(sys.executable).parent
NOT_OURS = ("LVDD_DATASETS", "LVDD_DATA_ROOT", "DAGSTER_HOME")


def _lvdd(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS} | {"LVDD_WORKERS": "1"}
    return subprocess.run(
        [str(BIN / "lvdd"), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_from_a_folder_to_a_file_and_again_with_less(rendered_videos: Path, tmp_path: Path) -> None:
    shutil.copytree(rendered_videos, tmp_path / "my videos")
    (tmp_path / "my videos/train/grow/IMG_9.MOV").touch()
    always = ("distill", "my videos", "--recipe", "codec", "--no-report", "--clips-per-class", "all")
    words = (*always, "--budget", "90kB")
    lost = "14 of 15 video files gave clips; left out: train/grow/IMG_9.MOV: empty file (0 bytes)"
    stopped = _lvdd(tmp_path, *words)
    assert stopped.returncode == 1
    found, check, run = stopped.stderr.splitlines()
    assert found == "my_videos: 2 classes, 11 train and 4 test videos, as in its folders train and test"
    assert check.startswith(
        f"check videos_are_usable failed: {lost}. Lost more than the allowed share: my_videos/grow."
    )
    assert run.startswith("run ")
    first = _lvdd(tmp_path, *words, "--max-lost-share", "0.2")
    assert first.returncode == 0, first.stderr
    assert first.stderr.splitlines() == [found, f"warning: {lost}"]
    release = load_release(tmp_path / "my_videos.zarr.zip")
    assert release.class_names == ("grow", "move_left")
    assert release.stored_bytes <= 90_000
    assert "load_release('my_videos.zarr.zip')" in first.stdout
    (kept,) = [line for line in first.stdout.splitlines() if line.startswith("kept ")]
    assert kept.endswith(
        "of 90.0 kB allowed: all clips are kept as finely as the recipe has them, a larger budget buys nothing"
    )
    less = _lvdd(
        tmp_path,
        *(*always, "--budget", "3000", "--out", "out/small.zarr.zip"),
    )
    assert less.returncode == 0, less.stderr
    assert "hosvd_cores    0 computed, 2 fresh" in less.stdout
    assert "release        1 computed, 0 fresh" in less.stdout
    assert load_release(tmp_path / "out/small.zarr.zip").stored_bytes <= 3000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lvdd", "my videos", "my_videos.zarr.zip", "out"]
    stale = _lvdd(tmp_path, "stale")  # the folder that was made is found by other commands
    assert "my_videos: 1 of 11 partitions are stale" in stale.stdout, stale.stderr
    assert "eval_report  my_videos  never made" in stale.stdout


def test_the_help_names_the_numbers_of_clips(tmp_path: Path) -> None:
    said = " ".join(_lvdd(tmp_path, "distill", "--help").stdout.split())
    assert f"default {DEFAULT_CLIPS} (recipe paper: {default_clips('paper')})" in said


def test_what_cannot_be_distilled_is_a_sentence_and_leaves_nothing_registered(
    rendered_videos: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    shutil.copytree(rendered_videos / "train/grow", one / "grow")
    few = tmp_path / "few"
    for name in ("grow", "move_left"):
        (few / name).mkdir(parents=True)
        first = next((rendered_videos / "train" / name).iterdir())
        shutil.copy(first, few / name)
    (tmp_path / "empty").mkdir()
    for folder, said in (
        ("one", "has 1 class (grow): a classifier needs two"),
        ("few", "too few videos to train on in grow, move_left: at least 2 a class"),
        ("empty", "has no class folders; expected <root>/<class>/<clip>"),
        ("absent", "does not exist"),
    ):
        result = _lvdd(tmp_path, "distill", folder, "--budget", "1MB")
        assert result.returncode in (1, 2), result.stdout
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    result = _lvdd(tmp_path, "distill", "few", "--budget", "1MB", "--clips-per-class", "most")
    said = "Error: dataset 'few': clips_per_class must be a whole number of at least 1, or all; got 'most'"
    assert result.stderr.startswith(said)
    result = _lvdd(tmp_path, "distill", "few", "--budget", "much")
    assert result.stderr.startswith("Error: dataset 'few': 'much' is not a size; expected e.g. 200kB")
    assert not (tmp_path / "lvdd/datasets.yaml").exists()
