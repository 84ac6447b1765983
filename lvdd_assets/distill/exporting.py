"""A release's clips in other tools' forms: WebDataset shards, a folder of videos, a Hugging Face `datasets` folder.

- `webdataset` loses nothing: each clip is a `.npy` (uint8 [T, 3, H, W], what the loader yields), which WebDataset's own
  decoder and plain numpy read and no pickle is in. Classes take turns, the most diverse clips first, because shards are
  read in order and a buffer shuffles only what is near.
- `folder` and `hf` hold H.264 files that every player, browser and video library opens. They are as close to the clips
  as 4:2:0 gets; docs/library.md has the figure.

Nothing is overwritten, and the folder appears whole or not at all. The same release gives the same bytes on one
machine; another's decoder may round a pixel otherwise, by one level.

Legend: N clips, T frames, H, W pixels, K classes.
"""

import csv
import io
import json
import re
import shutil
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lvdd_assets.distill.clip_datasets import ReleaseDataset
from lvdd_assets.distill.dataset_card import dataset_card
from lvdd_assets.distill.release import Release
from lvdd_assets.distill.video import write_clip

Format = Literal["webdataset", "folder", "hf"]
FORMATS: tuple[Format, ...] = ("webdataset", "folder", "hf")

Progress = Callable[[int, int], None]
"""Told the clips that are written and the clips in all."""

SHARD_BYTES = 256 * 10**6
"""Bytes after which the next shard begins."""

_CRF = 1  # x264's best quality that any decoder plays: its 0 is a profile of its own
_SOURCE_FPS = 25
_NAME_LENGTH = 60
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_PIXELS = {
    "webdataset": "Each clip is a `.npy` file, uint8 [T, 3, H, W], exactly what the loader yields.",
    "folder": "Each clip is an H.264 file (4:2:0, nearly lossless).",
    "hf": "Each clip is an H.264 file (4:2:0, nearly lossless).",
}


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        folder: where.
        to: in which form.
        num_clips: N.
        num_bytes: of all files.
        files: their paths within the folder, sorted.
    """

    folder: Path
    to: Format
    num_clips: int
    num_bytes: int
    files: tuple[str, ...]


def export(release: Release, to: Format, folder: Path, *, progress: Progress | None = None) -> ExportSummary:
    """Decodes all clips and writes them into a new folder.

    - `webdataset`: `train-000000.tar` …, samples `<clip>.npy`, `<clip>.cls`, `<clip>.json`;
    - `folder`: `<class>/<clip>.mp4` and `labels.csv` with path, label, class;
    - `hf`: what `datasets.load_dataset(folder)` reads, columns video, label, class.

    All have a dataset card, `README.md`, and `release.json` with class names and provenance. Soft labels go along.
    Clips are decoded a class at a time, so that memory stays bounded.

    Args:
        release: the opened release.
        to: one of `FORMATS`.
        folder: created; it may be there if it is empty.
        progress: told the clips that are written and the clips in all.

    Raises:
        FileExistsError: something is in the folder.
        ValueError: there is no such form; or H.264 cannot hold clips with odd sides.
        ReleaseError: the release is damaged.
    """
    if to not in FORMATS:
        raise ValueError(f"got to = {to!r}; expected one of {', '.join(FORMATS)}")
    folder = Path(folder)
    _refuse_what_is_there(folder)
    if to != "webdataset" and release.shape.size % 2:
        raise ValueError(
            f"H.264 cannot hold frames of {release.shape.size}×{release.shape.size} pixels, whose sides are odd: "
            "export to webdataset, which keeps them as they are"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        partial.chmod(0o755)  # as a folder that is made the plain way, not for this user alone
        _WRITERS[to](release, partial, progress or (lambda done, total: None))
        _write_about(release, to, partial)
        sizes = {path.relative_to(partial).as_posix(): path.stat().st_size for path in _files(partial)}
        _refuse_what_is_there(folder)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportSummary(folder, to, release.num_clips, sum(sizes.values()), tuple(sorted(sizes)))


def folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """A folder name for each class, valid on every file system and no two alike, whatever a stranger called a class.

    Letters, digits, `-` and `_` of any script stay; what else there is becomes `_`. Names that would be one folder
    where capitals or accents do not count are numbered.
    """
    found: list[str] = []
    used: set[str] = set()
    for name in class_names:
        text = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name))[:_NAME_LENGTH].strip("_-") or "class"
        if text.casefold() in _RESERVED:
            text = f"{text}_"
        choice, number = text, 1
        while _same(choice) in used:
            number += 1
            choice = f"{text}-{number}"
        used.add(_same(choice))
        found.append(choice)
    return tuple(found)


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())


def _refuse_what_is_there(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder that is not there yet")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, and nothing is overwritten: name another folder, or empty it")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_webdataset(release: Release, folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix=".decoded-", dir=folder) as cache:
        # Decoded once by class onto disk, and read from there in turns: memory holds a class at a time.
        dataset = ReleaseDataset(release, cache=Path(cache))
        with _Shards(folder) as shards:
            for done, index in enumerate(_in_turns(release.class_counts)):
                shards.add(_sample(release, dataset, index))
                progress(done + 1, release.num_clips)


class _Shards:
    """Tar files one after the other; no sample lies in two."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._stack = folder, 0, ExitStack()
        self._archive: tarfile.TarFile | None = None

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def add(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Adds a sample."""
        if self._archive is None or self._archive.offset >= SHARD_BYTES:
            self._stack.close()
            path = self._folder / f"train-{self._count:06d}.tar"
            archive = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (the stack closes it)
            self._archive = self._stack.enter_context(archive)
            self._count += 1
        for name, data in files:
            info = tarfile.TarInfo(name)  # no time, no owner: the same clips are the same bytes
            info.size = len(data)
            self._archive.addfile(info, io.BytesIO(data))


def _in_turns(counts: Sequence[int]) -> Iterator[int]:
    """Indices of clips: the first of each class, the second of each …"""
    starts = np.cumsum([0, *counts])
    for place in range(max(counts)):
        for label, count in enumerate(counts):
            if place < count:
                yield int(starts[label]) + place


def _sample(release: Release, dataset: ReleaseDataset, index: int) -> Iterator[tuple[str, bytes]]:
    """The files of one sample, which share all of their names up to the first dot."""
    clip, label = dataset[index]
    buffer = io.BytesIO()
    np.save(buffer, clip.numpy())
    about = {"class": release.class_names[label], "index": index, "label": label, **_soft_label(release, index)}
    yield f"{index:06d}.npy", buffer.getvalue()
    yield f"{index:06d}.cls", str(label).encode()
    yield f"{index:06d}.json", _json(about).encode()


def _write_folder(release: Release, folder: Path, progress: Progress) -> None:
    rows = list(_write_videos(release, folder, progress))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        more = [f"probability of {name}" for name in release.class_names] if release.has_soft_labels else []
        writer.writerow(["path", "label", "class", *more])
        for path, index in rows:
            label = int(release.labels[index])
            values = _soft_label(release, index).get("soft_label", [])
            writer.writerow([path, label, release.class_names[label], *values])


def _write_hf(release: Release, folder: Path, progress: Progress) -> None:
    train = folder / "train"
    train.mkdir()
    with (train / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for path, index in _write_videos(release, train, progress):
            label = int(release.labels[index])
            row = {"file_name": path, "label": label, "class": release.class_names[label]}
            file.write(_json({**row, **_soft_label(release, index)}) + "\n")


def _write_videos(release: Release, folder: Path, progress: Progress) -> Iterator[tuple[str, int]]:
    """Writes every clip as an H.264 file; yields its path in the folder and its index."""
    dataset, index = ReleaseDataset(release, cache=None), 0
    fps = max(1, round(_SOURCE_FPS / release.shape.stride))
    for label, name in enumerate(folder_names(release.class_names)):
        (folder / name).mkdir()
        for place, clip_TCHW in enumerate(dataset.clips_of(label)):
            path = f"{name}/{place:06d}.mp4"
            frames_THWC = np.ascontiguousarray(clip_TCHW.transpose(0, 2, 3, 1))
            write_clip(folder / path, frames_THWC, fps=fps, crf=_CRF)
            yield path, index
            index += 1
            progress(index, release.num_clips)


def _soft_label(release: Release, index: int) -> dict[str, Any]:
    """The probabilities of a clip, in as many digits as float32 has; nothing where labels are hard only."""
    if release.soft_levels is None:
        return {}
    levels = release.soft_levels[index].astype(np.float64)
    return {"soft_label": [float(f"{value:.9g}") for value in levels / levels.sum()]}


def _write_about(release: Release, to: Format, folder: Path) -> None:
    configuration: dict[str, Any] = {}
    if to == "hf":
        # The metadata and the videos alone are data: other files of the folder would be taken for some.
        splits = [{"split": "train", "path": "train/**"}]
        configuration = {"configs": [{"config_name": "default", "data_files": splits, "drop_labels": True}]}
    card = dataset_card(release, pixels=_PIXELS[to], configuration=configuration)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    about = {
        "name": release.name,
        "classes": release.class_names,
        "clips_by_class": release.class_counts,
        "clip": {"frames": release.shape.frames, "stride": release.shape.stride, "size": release.shape.size},
        "release_sha256": release.sha256,
        "provenance": release.provenance,
    }
    text = json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "release.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


_WRITERS: dict[Format, Callable[[Release, Path, Progress], None]] = {
    "webdataset": _write_webdataset,
    "folder": _write_folder,
    "hf": _write_hf,
}
