"""The registry file (`data/datasets.yaml`) to a checked catalog.

Every mistake in it is answered here, naming the file, the entry and the key. No dataset is opened; what lies in their
folders is `listing`'s.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from lvdd_assets.distill.catalog import (
    CLIP_PRESETS,
    DEFAULT_MAX_LOST_SHARE,
    DEFAULT_RECIPE,
    DEFAULT_VAE,
    RECIPES,
    Budget,
    Catalog,
    CatalogError,
    ClipShape,
    DatasetSpec,
    Sampling,
    Split,
    checked_class,
    parse_bytes,
)
from lvdd_assets.distill.listing import LAYOUTS

# A dataset's name is a folder's name and the first half of a partition key; "default" stands for the registry's
# default dataset.
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED_NAMES = frozenset({"default"})
_REQUIRED = ("root", "layout", "split", "budget")
_SHAPE = ("frames", "stride", "size")
_SAMPLING = ("sampling", "seed", "clips_per_video")
_OPTIONAL = ("clip", "group_pattern", "vae", "recipe", "classes", "clips_per_class", "annotations", "max_lost_share")
_ABOUT = ("license",)
_MAX_LICENSE = 200  # characters; each is a byte of the budget
_KEYS = frozenset({*_REQUIRED, *_SHAPE, *_SAMPLING, *_OPTIONAL, *_ABOUT})


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
    _refuse_twins(specs, path)
    default = raw.get("default", specs[0].name)
    catalog = Catalog(path, str(default), specs)
    catalog.dataset(catalog.default)
    return catalog


def _refuse_unknown(mapping: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in mapping if key not in known)
    if unknown:
        raise CatalogError(f"{where}: unknown key {', '.join(unknown)}; known keys: {', '.join(sorted(known))}")


def _refuse_twins(specs: tuple[DatasetSpec, ...], path: Path) -> None:
    """Names of datasets are names of folders, and some file systems do not tell `HMDB51` from `hmdb51`."""
    seen: dict[str, str] = {}
    for spec in specs:
        twin = seen.setdefault(spec.name.lower(), spec.name)
        if twin != spec.name:
            raise CatalogError(f"{path}: datasets {twin!r} and {spec.name!r} differ only in case; rename one")


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
    annotations = entry.get("annotations")
    return DatasetSpec(
        name=name,
        base=base,
        root=_path(base, entry["root"]),
        layout=layout,
        split=_read_split(entry["split"], layout),
        shape=_read_shape(entry),
        budget=_read_budget(entry["budget"]),
        sampling=_read_sampling(entry),
        vae=str(entry.get("vae", DEFAULT_VAE)),
        recipe=recipe,
        group_pattern=_read_pattern(entry.get("group_pattern")),
        classes=_read_classes(entry.get("classes")),
        clips_per_class=_read_clips_per_class(entry.get("clips_per_class")),
        annotations=None if annotations is None else _path(base, annotations),
        max_lost_share=_read_share(entry.get("max_lost_share", DEFAULT_MAX_LOST_SHARE)),
        license=_read_license(entry.get("license")),
    )


def _path(base: Path, text: object) -> Path:
    return Path(os.path.normpath(base / str(text)))


def _read_classes(raw: object) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not raw:
        raise CatalogError(f"classes must be a list of class names, got {raw!r}")
    return tuple(sorted({checked_class(str(item)) for item in raw}))


def _read_clips_per_class(raw: object) -> int | Literal["all"] | None:
    if raw is None or raw == "all":
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 1:
        raise CatalogError(f"clips_per_class must be a whole number of at least 1, or all; got {raw!r}")
    return raw


def _read_share(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 1:
        raise CatalogError(f"max_lost_share must be a number from 0 to 1, got {raw!r}")
    return float(raw)


def _read_license(raw: object) -> str | None:
    if raw is None:
        return None
    if not isinstance(raw, str) or not 0 < len(raw.strip()) <= _MAX_LICENSE:
        got = str(raw)[:80]
        raise CatalogError(f"license must be text of 1 to {_MAX_LICENSE} characters, e.g. cc-by-4.0, got {got!r}")
    return raw.strip()


def _read_pattern(raw: object) -> str | None:
    if raw is None:
        return None
    try:
        groups = re.compile(str(raw)).groups
    except re.error as error:
        raise CatalogError(f"group_pattern {raw!r} is not a regular expression: {error}") from error
    if groups < 1:
        raise CatalogError(
            f"group_pattern {raw!r} has no (group) in parentheses; put them round the part that names it"
        )
    return str(raw)


def _read_shape(entry: Mapping[str, Any]) -> ClipShape:
    """`clip` names a preset; frames, stride and size stand for themselves or change one value of the preset."""
    preset = entry.get("clip")
    if preset is not None and preset not in CLIP_PRESETS:
        raise CatalogError(f"unknown clip {preset!r}; known: {', '.join(CLIP_PRESETS)} (or frames, stride and size)")
    missing = [key for key in _SHAPE if key not in entry]
    if preset is None and missing:
        known = ", ".join(CLIP_PRESETS)
        raise CatalogError(f"missing key {', '.join(missing)}; or name a clip shape by `clip` ({known})")
    values = {} if preset is None else {key: getattr(CLIP_PRESETS[preset], key) for key in _SHAPE}
    return ClipShape(**{**values, **{key: entry[key] for key in _SHAPE if key in entry}})


def _read_sampling(entry: Mapping[str, Any]) -> Sampling:
    if "seed" in entry and entry.get("sampling", "center") != "random":
        raise CatalogError("seed is given, but sampling is not `random`: nothing would be drawn. Remove one.")
    given = {"protocol" if key == "sampling" else key: entry[key] for key in _SAMPLING if key in entry}
    return Sampling(**given)


def _read_split(raw: object, layout: str) -> Split:
    names = LAYOUTS[layout].SPLITS
    options = [f"`{name}`" for name in names]
    if LAYOUTS[layout].BY_GROUP:
        options += ["{test_groups: [...]}", "{test_fraction: 0.3}"]
    expected = (
        f"layout {layout} has {', '.join(options[:-1])} or {options[-1]}" if options[1:] else f"only {options[0]}"
    )
    if isinstance(raw, str) and raw in names:
        return Split(named=raw)
    if not LAYOUTS[layout].BY_GROUP or not isinstance(raw, dict) or len(raw) != 1:
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
