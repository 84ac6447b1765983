"""Every file of a class ends as clips or as a line with its reason, whatever the file does to the decoder."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill import ingestion
from lvdd_assets.distill.catalog import ClassListing, ClipFile, ClipShape, Refusal, Sampling
from lvdd_assets.distill.digests import DigestCache
from lvdd_assets.distill.ingestion import ClassRecord, ListedClass, ingest
from lvdd_assets.distill.sandbox import Sandbox
from lvdd_assets.distill.video import read_clips, write_clip

SHAPE = ClipShape(frames=8, stride=3, size=16)


def _film(path: Path, num_frames: int, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, size=(8, 8, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([np.roll(noise, shift, axis=1) for shift in range(num_frames)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames, fps=10)


def _listed(root: Path, *, refused: tuple[Refusal, ...] = ()) -> ListedClass:
    """All files below the root; those whose name begins with t are test clips."""
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    clips = tuple(ClipFile(name, name, Path(name).name.startswith("t")) for name in names)
    digests = DigestCache(root.parent / "digests.sqlite").digests([root / name for name in names])
    return ListedClass(ClassListing(clips, refused), tuple(digests[root / name] for name in names))


def _ingest(
    root: Path, listed: ListedClass, sampling: Sampling | None = None, **options: int
) -> tuple[ClassRecord, dict[str, np.ndarray]]:
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    record = ingest(
        root, listed, SHAPE, sampling or Sampling(), append=lambda side, clips: parts[side].append(clips), **options
    )
    return record, {side: np.concatenate(some) for side, some in parts.items() if some}


def test_clips_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for index in range(5):
        _film(root / f"a{index}.mp4", 30, seed=index)
    _film(root / "t0.mp4", 30, seed=9)
    listed = _listed(root)
    for num_processes in (1, 3):
        record, clips = _ingest(root, listed, num_processes=num_processes)
        for side, names in (("train", [f"a{index}.mp4" for index in range(5)]), ("test", ["t0.mp4"])):
            expected = np.stack([read_clips(root / name, SHAPE, Sampling())[0].frames_TCHW for name in names])
            np.testing.assert_array_equal(clips[side], expected)
            assert [row["file"] for row in record.clips[side]] == names
        assert record.num_videos == {"train": 5, "test": 1}
        assert record.excluded == []
        assert record.file_bytes == sum((root / f"a{index}.mp4").stat().st_size for index in range(5))
        assert len(record.previews) == 4


def test_bad_files_are_named_with_their_reasons(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    _film(root / "good.mp4", 30)
    (root / "empty.mp4").write_bytes(b"")
    (root / "page.mp4").write_text("<html>404</html>")
    data = (root / "good.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) // 2])
    refused = (Refusal("folder.avi", "a folder, not a file"),)
    record, clips = _ingest(root, _listed(root, refused=refused))
    assert len(clips["train"]) == 1
    reasons = {item.file: item.reason for item in record.excluded}
    assert sorted(reasons) == ["cut.mp4", "empty.mp4", "folder.avi", "page.mp4"]
    assert "0 bytes" in reasons["empty.mp4"]
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_short_files_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for num_frames in (30, 22, 15, 4, 1):
        _film(root / f"{num_frames:02d}.mp4", num_frames)
    record, clips = _ingest(root, _listed(root))
    assert len(clips["train"]) == 5
    assert {row["file"]: (row["stride"], row["num_repeated"]) for row in record.rows(SHAPE.stride)} == {
        "15.mp4": (2, 0),
        "04.mp4": (0, 4),
        "01.mp4": (0, 7),
    }


def test_several_windows_of_train_videos_only(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    _film(root / "a.mp4", 60)
    _film(root / "short.mp4", 23)  # two different windows
    _film(root / "t.mp4", 60)
    record, clips = _ingest(root, _listed(root), Sampling(clips_per_video=3))
    assert [row["file"] for row in record.clips["train"]] == ["a.mp4"] * 3 + ["short.mp4"] * 2
    starts = [row["start"] for row in record.clips["train"]]
    assert starts[:3] == sorted(set(starts[:3]))
    assert len(record.clips["test"]) == 1
    assert len({clip.tobytes() for clip in clips["train"]}) == 5
    assert record.num_fewer_windows == 1
    assert record.num_videos == {"train": 2, "test": 1}


def test_random_starts_are_seeded_and_independent(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for index in range(6):
        _film(root / f"a{index}.mp4", 60)
    first = _ingest(root, _listed(root), Sampling("random", seed=1))[0].clips["train"]
    again = _ingest(root, _listed(root), Sampling("random", seed=1))[0].clips["train"]
    other = _ingest(root, _listed(root), Sampling("random", seed=2))[0].clips["train"]
    assert first == again != other
    _film(root / "a00.mp4", 60)
    more = _ingest(root, _listed(root), Sampling("random", seed=1))[0].clips["train"]
    assert [row for row in more if row["file"] != "a00.mp4"] == first


def test_a_file_that_changed_since_it_was_hashed_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    _film(root / "a.mp4", 30)
    listed = _listed(root)
    _film(root / "a.mp4", 31)
    with pytest.raises(ValueError, match=r"a\.mp4 changed while the run read it. Run again"):
        _ingest(root, listed)
    (root / "a.mp4").unlink()
    with pytest.raises(ValueError, match="changed while the run read it"):
        _ingest(root, listed)


def _hostile(task: ingestion._Task) -> object:
    """Stands for a file that a decoder cannot bear."""
    if "crash" in task.file.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    return ingestion._read(task)


def test_a_crash_of_the_decoder_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "videos"
    for name in ("a.mp4", "crash.mp4", "z.mp4"):
        _film(root / name, 30)
    with Sandbox(_hostile, seconds=60, memory_bytes=2**32) as sandbox:
        monkeypatch.setattr(ingestion, "_sandbox", lambda: sandbox)
        record, clips = _ingest(root, _listed(root))
    assert [row["file"] for row in record.clips["train"]] == ["a.mp4", "z.mp4"]
    assert len(clips["train"]) == 2
    (lost,) = record.excluded
    assert lost.file == "crash.mp4"
    assert "SIGSEGV" in lost.reason
