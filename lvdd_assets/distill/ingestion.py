"""A class's video files to its clips, streamed: decodes in processes of their own and keeps the record of every file.

What becomes of a file is always said: its clips, or the reason why it has none. How a file is decoded belongs to
`video`, where the clips are kept to the caller.
"""

import atexit
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.catalog import ClassListing, ClipFile, ClipShape, Refusal, Sampling
from lvdd_assets.distill.containers import VideoError
from lvdd_assets.distill.digests import FileDigest
from lvdd_assets.distill.sandbox import Sandbox
from lvdd_assets.distill.video import Clip, read_clips

FILE_SECONDS = 120.0
"""Longest time that one file may take."""

_MAX_PREVIEW_FRAMES = 8

FILE_MEMORY_BYTES = 4 * 2**30
"""Address space of a decoding process: an 8K video in 10 bits needs about 3 GiB for its reference frames."""


@dataclass(frozen=True)
class ListedClass:
    """A class's files as they were listed and hashed.

    Attributes:
        listing: the files, and what is not used.
        digests: of each of `listing.clips`, in their order; None for a file that could not be opened.
    """

    listing: ClassListing
    digests: tuple[FileDigest | None, ...]


@dataclass
class ClassRecord:
    """What became of a class's files.

    Attributes:
        clips: for each side of the split a row for each stored clip, in the order of storing: file, start, stride,
            num_repeated.
        excluded: files without a clip, with the reason.
        num_videos: usable files for each side.
        file_bytes: size of the usable train files.
        num_fewer_windows: train files that are too short for as many different windows as were asked for.
        previews: the first train clips, uint8 [T, C, H, W] each, of at most 8 of their frames.
    """

    clips: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"train": [], "test": []})
    excluded: list[Refusal] = field(default_factory=list)
    num_videos: dict[str, int] = field(default_factory=lambda: {"train": 0, "test": 0})
    file_bytes: int = 0
    num_fewer_windows: int = 0
    previews: list[NDArray[np.uint8]] = field(default_factory=list)

    def rows(self, stride: int) -> list[dict[str, Any]]:
        """The clips that are not as asked for: at a smaller stride, or with repeated frames."""
        return [row for rows in self.clips.values() for row in rows if row["stride"] != stride or row["num_repeated"]]


def ingest(
    root: Path,
    listed: ListedClass,
    shape: ClipShape,
    sampling: Sampling,
    *,
    append: Callable[[str, NDArray[np.uint8]], None],
    num_processes: int = 1,
    num_previews: int = 4,
) -> ClassRecord:
    """Reads all files of a class in order; memory does not grow with their number.

    Args:
        root: the dataset's root.
        listed: the files.
        shape: frames, stride and size of a clip.
        sampling: which windows; a test file gives one whatever it says.
        append: takes "train" or "test" and clips, uint8 [N, T, C, H, W].
        num_processes: files decoded at a time.
        num_previews: clips to keep for a picture.

    Raises:
        ValueError: a file is no longer the one that was hashed.
    """
    record = ClassRecord(excluded=list(listed.listing.refused))
    files = list(zip(listed.listing.clips, listed.digests, strict=True))
    tasks = (_Task(root, file, digest, shape, sampling) for file, digest in files)
    for task, result in _sandbox().map(tasks, num_processes=num_processes):
        if isinstance(result, _ChangedError):
            raise ValueError(str(result))
        if isinstance(result, Exception):
            record.excluded.append(Refusal(task.file.name, str(result)))
            continue
        _note(record, task, result)
        for clip in result:
            append("test" if task.file.is_test else "train", clip.frames_TCHW[None])
            if not task.file.is_test and len(record.previews) < num_previews:
                record.previews.append(clip.frames_TCHW[:: math.ceil(shape.frames / _MAX_PREVIEW_FRAMES)])
    record.excluded.sort(key=lambda item: item.file)
    return record


class _ChangedError(ValueError):
    """A file is not the one that was hashed."""


@dataclass(frozen=True)
class _Task:
    """One file to be read."""

    root: Path
    file: ClipFile
    digest: FileDigest | None
    shape: ClipShape
    sampling: Sampling


@functools.cache
def _sandbox() -> Sandbox:
    """The decoding processes of this process, kept from class to class."""
    sandbox = Sandbox(_read, seconds=FILE_SECONDS, memory_bytes=FILE_MEMORY_BYTES)
    atexit.register(sandbox.close)
    return sandbox


def _read(task: _Task) -> list[Clip]:
    """The clips of one file; runs in a process of its own."""
    path = task.root / task.file.name
    if task.digest is None:
        raise VideoError("cannot be opened")
    sampling = replace(task.sampling, clips_per_video=1) if task.file.is_test else task.sampling
    try:
        return read_clips(path, task.shape, sampling, name=task.file.name)
    finally:
        # Also when it could not be read: half-copied files look damaged.
        if not task.digest.still_holds(path):
            raise _ChangedError(f"{path} changed while the run read it. Run again when nothing writes there.")


def _note(record: ClassRecord, task: _Task, clips: Sequence[Clip]) -> None:
    assert task.digest is not None
    side = "test" if task.file.is_test else "train"
    record.num_videos[side] += 1
    if side == "train":
        record.file_bytes += task.digest.size
        record.num_fewer_windows += len(clips) < task.sampling.clips_per_video
    record.clips[side] += [
        {
            "file": task.file.name,
            "start": clip.window.start,
            "stride": clip.window.stride,
            "num_repeated": clip.window.num_repeated,
        }
        for clip in clips
    ]
