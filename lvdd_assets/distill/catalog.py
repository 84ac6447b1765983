"""What exists and what it is called: datasets, classes, clips, splits, clip shape, budget.

The registry (`data/datasets.yaml`) is read here, and the folders that it names are listed here. Files are listed and
hashed, never decoded (`video`), and nothing is written. Partition keys are made of the names that this module checks.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

LAYOUTS = ("folders",)
RECIPES = ("tight", "paper")
DEFAULT_VAE = "embedded-2d"
DEFAULT_RECIPE = "tight"
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

# A dataset's name is a folder's name and the first half of a partition key; "default" stands for the registry's
# default dataset.
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED_NAMES = frozenset({"default"})
_REQUIRED = ("root", "layout", "split", "frames", "stride", "size", "budget")
_KEYS = frozenset({*_REQUIRED, "group_pattern", "vae", "recipe", "classes", "clips_per_class"})
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class CatalogError(ValueError):
    """The registry, or a folder it names, is not as expected. The message says what to mend."""


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
        test_groups: groups whose clips are all test clips.
        test_fraction: share of the groups, in (0, 1), drawn by a hash of the group's name, so that a new clip moves no
            other.
        by_folder: the root holds `train/<class>/` and `test/<class>/`.
    """

    test_groups: frozenset[str] | None = None
    test_fraction: float | None = None
    by_folder: bool = False

    def is_test(self, group: str) -> bool:
        """Whether clips of this group are test clips (not for a split by folder)."""
        if self.test_groups is not None:
            return group in self.test_groups
        digest = hashlib.sha256(group.encode()).digest()
        return int.from_bytes(digest[:8], "big") < (self.test_fraction or 0.0) * 2**64


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of the registry, checked. `base` is the registry's folder, to which relative paths refer."""

    name: str
    base: Path
    root: Path
    layout: str
    split: Split
    shape: ClipShape
    budget: Budget
    vae: str = DEFAULT_VAE
    recipe: str = DEFAULT_RECIPE
    group_pattern: str | None = None
    classes: tuple[str, ...] | None = None
    clips_per_class: int | None = None


@dataclass(frozen=True)
class ClipFile:
    """One video file: its path relative to the dataset's root, its group, and whether it is a test clip."""

    name: str
    group: str
    is_test: bool


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


def load_catalog(path: Path) -> Catalog:
    """Reads and checks a registry file; opens no dataset.

    Raises:
        CatalogError: the file is absent or says something that is not understood; the message names the entry and the
            key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError(
            f"no registry of datasets at {path} ({error.strerror}). Run from the project's folder, or name one "
            "by LVDD_DATASETS."
        ) from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("datasets"), dict) or not raw["datasets"]:
        raise CatalogError(f"{path}: expected the keys `default` and `datasets` (a mapping of names to entries)")
    _refuse_unknown(raw, frozenset({"default", "datasets"}), str(path))
    specs = tuple(_read_entry(str(name), entry, path) for name, entry in raw["datasets"].items())
    default = raw.get("default", specs[0].name)
    catalog = Catalog(path, str(default), specs)
    catalog.dataset(catalog.default)
    return catalog


def _refuse_unknown(mapping: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in mapping if key not in known)
    if unknown:
        raise CatalogError(f"{where}: unknown key {', '.join(unknown)}; known keys: {', '.join(sorted(known))}")


def _read_entry(name: str, entry: object, path: Path) -> DatasetSpec:
    where = f"{path}, dataset {name!r}"
    if not _DATASET_NAME.fullmatch(name) or name in _RESERVED_NAMES:
        raise CatalogError(
            f"{where}: a dataset's name is 1 to 64 letters, digits, '-' or '_', and not 'default'; choose another"
        )
    if not isinstance(entry, dict):
        raise CatalogError(f"{where}: expected a mapping, got {entry!r}")
    _refuse_unknown(entry, _KEYS, where)
    missing = [key for key in _REQUIRED if key not in entry]
    if missing:
        raise CatalogError(f"{where}: missing key {', '.join(missing)}")
    try:
        return _build_spec(name, entry, path.parent.resolve())
    except CatalogError as error:
        raise CatalogError(f"{where}: {error}") from error


def _build_spec(name: str, entry: Mapping[str, Any], base: Path) -> DatasetSpec:
    layout, recipe = entry["layout"], entry.get("recipe", DEFAULT_RECIPE)
    if layout not in LAYOUTS:
        raise CatalogError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if recipe not in RECIPES:
        raise CatalogError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    pattern = entry.get("group_pattern")
    if pattern is not None:
        _check_pattern(pattern)
    classes = entry.get("classes")
    if classes is not None:
        if not isinstance(classes, list) or not classes:
            raise CatalogError(f"classes must be a list of class names, got {classes!r}")
        classes = tuple(sorted({_checked_class(str(item)) for item in classes}))
    per_class = entry.get("clips_per_class")
    if per_class is not None and (isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1):
        raise CatalogError(f"clips_per_class must be a whole number of at least 1, got {per_class!r}")
    return DatasetSpec(
        name=name,
        base=base,
        root=Path(os.path.normpath(base / str(entry["root"]))),
        layout=layout,
        split=_read_split(entry["split"]),
        shape=ClipShape(entry["frames"], entry["stride"], entry["size"]),
        budget=_read_budget(entry["budget"]),
        vae=str(entry.get("vae", DEFAULT_VAE)),
        recipe=recipe,
        group_pattern=pattern,
        classes=classes,
        clips_per_class=per_class,
    )


def _check_pattern(pattern: object) -> None:
    try:
        groups = re.compile(str(pattern)).groups
    except re.error as error:
        raise CatalogError(f"group_pattern {pattern!r} is not a regular expression: {error}") from error
    if groups < 1:
        raise CatalogError(
            f"group_pattern {pattern!r} has no (group) in parentheses; put them round the part that names it"
        )


def _read_split(raw: object) -> Split:
    expected = "expected `folders`, {test_groups: [...]} or {test_fraction: 0.3}"
    if raw == "folders":
        return Split(by_folder=True)
    if not isinstance(raw, dict) or len(raw) != 1:
        raise CatalogError(f"split is {raw!r}; {expected}")
    key, value = next(iter(raw.items()))
    if key == "test_groups" and isinstance(value, list) and value:
        return Split(test_groups=frozenset(str(group) for group in value))
    if key == "test_fraction" and isinstance(value, float) and 0 < value < 1:
        return Split(test_fraction=value)
    raise CatalogError(f"split is {raw!r}; {expected} (a fraction lies between 0 and 1)")


def _read_budget(raw: object) -> Budget:
    if not isinstance(raw, dict):
        raise CatalogError(f"budget is {raw!r}; expected {{ipc: 1}} or {{bytes: 200kB}}")
    _refuse_unknown(raw, frozenset({"ipc", "bytes"}), "budget")
    num_bytes = parse_bytes(raw["bytes"]) if "bytes" in raw else None
    return Budget(ipc=raw.get("ipc"), num_bytes=num_bytes)


def _checked_class(name: str) -> str:
    """A class name that can be half of a partition key and the name of a zarr group."""
    bad = any(ord(char) < 32 or char in "/\\" for char in name) or "..." in name or name.startswith((".", "__"))
    if not name or bad or len(name.encode()) > 200:
        raise CatalogError(
            f"class name {name!r} cannot be a partition key: no '/', '\\', '...', control characters, no leading '.' "
            "or '__', at most 200 bytes. Rename its folder."
        )
    return name


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The dataset's classes, sorted: as the registry lists them, else the folders on disk (none if the root is absent).

    Raises:
        CatalogError: a folder's name cannot be a partition key.
    """
    if spec.classes is not None:
        return spec.classes
    roots = [spec.root / "train", spec.root / "test"] if spec.split.by_folder else [spec.root]
    found = {
        entry.name
        for root in roots
        if root.is_dir()
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    }
    return tuple(_checked_class(name) for name in sorted(found))


def list_clips(spec: DatasetSpec) -> dict[str, tuple[ClipFile, ...]]:
    """All video files of a dataset by class, sorted by name; nothing is opened.

    Raises:
        CatalogError: no folder, a class without folder, a file that matches no group, a test group that no file belongs
            to.
    """
    if not spec.root.is_dir():
        hint = "Run `make demo` to render it." if spec.name == "demo" else "Mend `root` in the registry."
        raise CatalogError(f"dataset {spec.name!r}: no folder {spec.root}. {hint}")
    clips = {name: list_class(spec, name) for name in class_names(spec)}
    if not clips:
        raise CatalogError(f"dataset {spec.name!r}: {spec.root} has no class folders; expected <root>/<class>/<clip>")
    if spec.split.test_groups is not None:
        found = {clip.group for files in clips.values() for clip in files}
        lost = sorted(spec.split.test_groups - found)
        if lost:
            some = ", ".join(sorted(found)[:5])
            raise CatalogError(f"dataset {spec.name!r}: test_groups {lost} match no file; groups found: {some}, …")
    return clips


def list_class(spec: DatasetSpec, class_name: str) -> tuple[ClipFile, ...]:
    """The video files of one class, sorted by name; nothing is opened.

    Raises:
        CatalogError: the class has no folder, or a file matches no group.
    """
    folders = ["train", "test"] if spec.split.by_folder else [""]
    clips = []
    for folder in folders:
        start = spec.root / folder / class_name
        if not start.is_dir():
            raise CatalogError(f"dataset {spec.name!r}, class {class_name!r}: no folder {start}")
        for parent, _, names in os.walk(start):
            for name in names:
                if name.startswith(".") or PurePosixPath(name).suffix.lower() not in VIDEO_SUFFIXES:
                    continue
                path = (Path(parent) / name).relative_to(spec.root).as_posix()
                group = _group_of(spec, name)
                is_test = folder == "test" if spec.split.by_folder else spec.split.is_test(group)
                clips.append(ClipFile(path, group, is_test))
    return tuple(sorted(clips, key=lambda clip: clip.name))


def _group_of(spec: DatasetSpec, file_name: str) -> str:
    if spec.group_pattern is None:
        return PurePosixPath(file_name).stem
    match = re.search(spec.group_pattern, file_name)
    if match is None:
        raise CatalogError(
            f"dataset {spec.name!r}: {file_name!r} does not match group_pattern {spec.group_pattern!r}, so its split "
            "is unknown. Mend the pattern or move the file away."
        )
    return match[1]


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content, remembered within the process by size and time of change."""
    stat = path.stat()
    return _hash_file(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _hash_file(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
