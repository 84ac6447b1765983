"""What a dataset is and what it is called: clip shape, sampling, split, budget, classes, files.

Types and their checks only. The registry file is read in `registry`, the folders that it names are listed in `layouts`,
files are decoded in `video`. Partition keys are made of the names that this module checks.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

RECIPES = ("tight", "paper", "codec", "auto")
DEFAULT_VAE = "embedded-2d"
DEFAULT_RECIPE = "tight"
DEFAULT_MAX_LOST_SHARE = 0.1
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

# Dagster keeps keys in a database and in URLs; no folder has a longer name than 255 bytes, but labels of a list may.
_MAX_NAME_BYTES = 1000
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class CatalogError(ValueError):
    """The registry, or a folder or list it names, is not as expected. The message says what to mend."""


@dataclass(frozen=True)
class ClipShape:
    """A clip as the networks see it: `frames` frames, `stride` source frames apart, `size` × `size` RGB pixels."""

    frames: int
    stride: int
    size: int

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CatalogError(f"{name} must be a whole number of at least 1, got {value!r}")

    @property
    def window(self) -> int:
        """Source frames from the first to the last sampled one, both counted."""
        return (self.frames - 1) * self.stride + 1


CLIP_PRESETS: Mapping[str, ClipShape] = {"16x112": ClipShape(16, 4, 112), "8x64": ClipShape(8, 4, 64)}
"""The clip shapes of the field's benchmark by name: MiniUCF, HMDB51 (16 frames), Kinetics-400, SSv2 (8 frames)."""


@dataclass(frozen=True)
class Sampling:
    """Which windows of a video become clips.

    Attributes:
        protocol: `center`, the window in the middle of the video; or `random`, a start drawn once for each clip.
        seed: for `random`; the start depends on it and on the file's name alone, so that no clip moves another.
        clips_per_video: windows of a train video: spread evenly (`center`) or drawn (`random`), never the same twice.
            A test video always gives one clip.
    """

    protocol: str = "center"
    seed: int = 0
    clips_per_video: int = 1

    PROTOCOLS = ("center", "random")

    def __post_init__(self) -> None:
        if self.protocol not in self.PROTOCOLS:
            raise CatalogError(f"unknown sampling {self.protocol!r}; known: {', '.join(self.PROTOCOLS)}")
        for name, least in (("seed", 0), ("clips_per_video", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CatalogError(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True)
class Budget:
    """What a dataset's release may take: `num_bytes` on disk, or `ipc` clips a class in the field's float32
    counting."""

    ipc: int | None = None
    num_bytes: int | None = None

    def __post_init__(self) -> None:
        if (self.ipc is None) == (self.num_bytes is None):
            raise CatalogError("budget needs exactly one of ipc and bytes, e.g. {ipc: 1} or {bytes: 200kB}")
        value = self.ipc if self.num_bytes is None else self.num_bytes
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CatalogError(f"budget must be a whole number of at least 1, got {value!r}")


@dataclass(frozen=True)
class Split:
    """Which clips are for testing. Exactly one field is set.

    Attributes:
        named: a split that the layout knows by name, e.g. `folders` or `official-1`.
        test_groups: groups whose clips are all test clips.
        test_fraction: share of the groups, in (0, 1), drawn by a hash of the group's name, so that a new clip moves no
            other.
    """

    named: str | None = None
    test_groups: frozenset[str] | None = None
    test_fraction: float | None = None

    def __str__(self) -> str:
        if self.test_groups is not None:
            return f"{len(self.test_groups)} test groups"
        return self.named or f"{self.test_fraction:.0%} of groups test"

    def is_test(self, group: str) -> bool:
        """Whether clips of this group are test clips (not for a named split).

        Raises:
            CatalogError: the split is a named one, which goes by file, not by group.
        """
        if self.test_groups is not None:
            return group in self.test_groups
        if self.test_fraction is None:
            raise CatalogError(f"split {self.named!r} does not go by group")
        digest = hashlib.sha256(group.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.test_fraction * 2**64


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of the registry, checked. `base` is the registry's folder, to which relative paths refer.

    Attributes:
        annotations: folder of the publisher's lists; None looks for it inside and beside the root.
        clips_per_class: train clips that are selected of each class; None leaves it to `dpp_subsets`.
        max_lost_share: share of a class's files that may be unusable before the check on `raw_clips` fails, in [0, 1].
        license: of the videos, as the registry names it; it goes into the release. None where it names none.
    """

    name: str
    base: Path
    root: Path
    layout: str
    split: Split
    shape: ClipShape
    budget: Budget
    sampling: Sampling = field(default_factory=Sampling)
    vae: str = DEFAULT_VAE
    recipe: str = DEFAULT_RECIPE
    group_pattern: str | None = None
    classes: tuple[str, ...] | None = None
    clips_per_class: int | Literal["all"] | None = None
    annotations: Path | None = None
    max_lost_share: float = DEFAULT_MAX_LOST_SHARE
    license: str | None = None


@dataclass(frozen=True)
class ClipFile:
    """One video file: its path relative to the dataset's root, its group, and whether it is a test clip."""

    name: str
    group: str
    is_test: bool


@dataclass(frozen=True)
class Refusal:
    """A file that is not used, and why; the name is relative to the dataset's root."""

    file: str
    reason: str


@dataclass(frozen=True)
class ClassListing:
    """What there is of one class, sorted by name; nothing was opened.

    Attributes:
        clips: the files of both sides of the split.
        refused: names that stand where a video is expected but cannot be one, e.g. a folder or a link out of the root.
        missing: files that the publisher lists for this split and that are not on disk.
        unused: files on disk that the split leaves out, as HMDB51's flag 0 does.
    """

    clips: tuple[ClipFile, ...] = ()
    refused: tuple[Refusal, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """All datasets of one registry file, in its order."""

    path: Path
    default: str
    datasets: tuple[DatasetSpec, ...]

    def dataset(self, name: str) -> DatasetSpec:
        """The dataset of that name; "default" is the registry's default.

        Raises:
            CatalogError: there is none.
        """
        wanted = self.default if name == "default" else name
        for spec in self.datasets:
            if spec.name == wanted:
                return spec
        known = ", ".join(spec.name for spec in self.datasets)
        raise CatalogError(
            f"unknown dataset {name!r}; {self.path} has: {known}. Add an entry there or use one of these."
        )


def parse_bytes(text: str | int) -> int:
    """A number of bytes from `200kB`, `1.5 MB`, `64KiB` or a whole number; kB, MB, GB are powers of 1,000.

    Raises:
        CatalogError: it is not of that form.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].lower() not in _UNITS:
        raise CatalogError(f"{text!r} is not a size; expected e.g. 200kB, 1.5MB, 64KiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def checked_class(name: str) -> str:
    """A class name that can be half of a partition key: almost any text, since no path is ever made of it unescaped.

    Raises:
        CatalogError: it is empty, not Unicode, longer than 1,000 bytes, or has what Dagster's keys cannot have.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise CatalogError(f"class name {name!r} is not valid UTF-8. Rename its folder.") from None
    if (
        not name.strip()
        or size > _MAX_NAME_BYTES
        or "..." in name
        or any(ord(char) < 32 or char == "\x7f" for char in name)
    ):
        raise CatalogError(
            f"class name {name[:80]!r} cannot be a partition key: no '...', no control characters, not blank, at most "
            f"{_MAX_NAME_BYTES} bytes. Rename it."
        )
    return name
