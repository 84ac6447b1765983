"""`exporting`: what other tools read back is what the release holds; nothing is overwritten, nothing is left half."""

import csv
import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill import exporting
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.exporting import FORMATS, ExportSummary, export, folder_names
from lvdd_assets.distill.release import Release, ReleaseError, load_release

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def release() -> Release:
    """Soft labels, latents and video."""
    return load_release(GOLDEN / "release-v4.zarr.zip")


@pytest.fixture(scope="module")
def clips(release: Release) -> np.ndarray:
    return np.stack([clip.numpy() for clip, _ in release.dataset()])


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _read_frames(path: Path) -> np.ndarray:
    """uint8 [T, 3, H, W], by PyAV as anybody would."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).transpose(0, 3, 1, 2)


def _signal_to_noise(clips: np.ndarray, others: np.ndarray) -> float:
    """Decibels."""
    return float(10 * np.log10(255**2 / np.mean((clips.astype(np.float64) - others) ** 2)))


def test_webdataset_reads_back_every_clip_to_the_bit(release: Release, clips: np.ndarray, tmp_path: Path) -> None:
    summary = export(release, "webdataset", tmp_path / "out")
    shards = [name for name in summary.files if name.endswith(".tar")]
    assert shards == ["train-000000.tar"]
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / shards[0]), shardshuffle=False).decode())
    assert len(samples) == summary.num_clips == release.num_clips
    for sample in samples:
        index = int(sample["__key__"])
        assert sample["npy"].dtype == np.uint8
        np.testing.assert_array_equal(sample["npy"], clips[index])
        assert sample["cls"] == sample["json"]["label"] == release.labels[index]
        assert sample["json"]["class"] == release.class_names[sample["cls"]]
        assert sample["json"]["index"] == index
        np.testing.assert_allclose(sample["json"]["soft_label"], release.soft_labels[index], rtol=1e-6)
    labels = [sample["cls"] for sample in samples]
    assert sorted(labels[: release.num_classes]) == list(range(release.num_classes))  # classes take turns


def test_shards_end_where_they_are_full(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SHARD_BYTES", 10_000)
    summary = export(release, "webdataset", tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [shard.name for shard in shards] == [f"train-{number:06d}.tar" for number in range(len(shards))]
    assert len(shards) > 1
    samples = webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False).decode()
    assert sorted(int(sample["__key__"]) for sample in samples) == list(range(summary.num_clips))
    for shard in shards:
        with tarfile.open(shard) as archive:
            assert all((member.mtime, member.uid, member.uname) == (0, 0, "") for member in archive)


def test_a_folder_of_videos_is_what_labels_csv_says(release: Release, clips: np.ndarray, tmp_path: Path) -> None:
    export(release, "folder", tmp_path / "out")
    with (tmp_path / "out" / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.mp4")
    )
    for index, row in enumerate(rows):
        frames = _read_frames(tmp_path / "out" / row["path"])
        assert frames.shape == clips[index].shape
        assert _signal_to_noise(clips[index], frames) > 25  # these are noise, of which 4:2:0 keeps the brightness
        assert (int(row["label"]), row["class"]) == (release.labels[index], release.class_names[release.labels[index]])
        soft = [float(row[f"probability of {name}"]) for name in release.class_names]
        np.testing.assert_allclose(soft, release.soft_labels[index], rtol=1e-6)


def test_datasets_reads_the_folder_back(release: Release, tmp_path: Path) -> None:
    export(release, "hf", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    rows = found["train"].cast_column("video", datasets.Video(decode=False))  # decoding takes torchcodec
    assert set(rows.column_names) == {"video", "label", "class", "soft_label"}
    assert rows["label"] == release.labels.tolist()
    assert rows["class"] == [release.class_names[label] for label in release.labels]
    np.testing.assert_allclose(rows["soft_label"], release.soft_labels, rtol=1e-6)
    for row in rows:
        assert _read_frames(Path(row["video"]["path"])).shape == (4, 3, 16, 16)


def test_hard_labels_alone_leave_soft_ones_out(release: Release, tmp_path: Path) -> None:
    hard = replace(release, soft_levels=None)
    for to in FORMATS:
        export(hard, to, tmp_path / to)
    assert (tmp_path / "folder" / "labels.csv").read_text().splitlines()[0] == "path,label,class"
    assert "soft_label" not in (tmp_path / "hf" / "train" / "metadata.jsonl").read_text()
    assert b"soft_label" not in (tmp_path / "webdataset" / "train-000000.tar").read_bytes()


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_release_gives_the_same_bytes(release: Release, tmp_path: Path, to: exporting.Format) -> None:
    told: list[tuple[int, int]] = []
    summary = export(release, to, tmp_path / "new" / "first", progress=lambda done, total: told.append((done, total)))
    export(release, to, tmp_path / "second")
    digests = _digests(tmp_path / "new" / "first")
    assert digests == _digests(tmp_path / "second")
    assert tuple(sorted(digests)) == summary.files
    assert {"README.md", "release.json"} <= set(summary.files)
    size = sum(path.stat().st_size for path in (tmp_path / "second").rglob("*") if path.is_file())
    assert summary == ExportSummary(tmp_path / "new" / "first", to, release.num_clips, size, summary.files)
    assert told == [(done, release.num_clips) for done in range(1, release.num_clips + 1)]
    about = json.loads((tmp_path / "second" / "release.json").read_text(encoding="utf-8"))
    assert (about["classes"], about["release_sha256"]) == (list(release.class_names), release.sha256)
    assert (tmp_path / "second").stat().st_mode & 0o777 == 0o755


def test_nothing_is_overwritten(release: Release, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty, and nothing is overwritten: name another folder"):
        export(release, "folder", tmp_path / "full")
    with pytest.raises(FileExistsError, match="is a file; name a folder"):
        export(release, "folder", tmp_path / "full" / "mine.txt")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(release, "folder", tmp_path / "empty")
    assert (tmp_path / "empty" / "labels.csv").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_what_breaks_leaves_nothing(release: Release, tmp_path: Path, to: exporting.Format) -> None:
    cut = replace(release, coded=(*release.coded[:2], replace(release.coded[2], packets=(b"\xff\x00",) * 2)))
    with pytest.raises(ReleaseError):
        export(cut, to, tmp_path / "out")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(release, to, tmp_path / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said(release: Release, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to = 'zip'; expected one of webdataset, folder, hf"):
        export(release, "zip", tmp_path / "out")  # type: ignore[arg-type]
    odd = replace(release, shape=ClipShape(4, 2, 15))
    with pytest.raises(ValueError, match="15×15 pixels, whose sides are odd: export to webdataset"):
        export(odd, "folder", tmp_path / "out")


def test_names_of_classes_become_folders() -> None:
    names = ["jump high", "jump/high", "Läuft", "läuft", "../../etc", "con", "…", "走る", "a" * 300, "a" * 299 + "b"]
    assert folder_names(names) == (
        "jump_high",
        "jump_high-2",
        "Läuft",
        "läuft-2",
        "etc",
        "con_",
        "class",
        "走る",
        "a" * 60,
        "a" * 60 + "-2",
    )


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_folder_names_are_safe_and_never_collide(names: list[str]) -> None:
    found = folder_names(names)
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\:*?"<>|. \0\n')
        assert len(name.encode("utf-8", "surrogatepass")) <= 255
