"""Layout `ssv2`: `<id>.webm` and the label files of Something-Something V2.

The split `official`: `train.json` trains, `validation.json` are the test clips; the publisher's test split has no
labels.
A class is a template without its brackets and stands in `labels.json`. An id that both lists name is a test clip only.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec
from lvdd_assets.distill.layouts import lists
from lvdd_assets.distill.layouts.lists import Listed, ListFile
from lvdd_assets.distill.layouts.tree import scan

SPLITS: tuple[str, ...] = ("official",)
BY_GROUP = False
# docs/DATASET.md of OpenGVLab/VideoMAEv2.
EXPECTED: dict[str, tuple[int, int]] = {"official": (168913, 24777)}

FOLDERS = ("labels", "annotations", "20bn-something-something-download-package-labels/labels")
_LABELS, _TRAIN, _TEST = (
    (f"{name}.json", f"something-something-v2-{name}.json") for name in ("labels", "train", "validation")
)
_TOPS: tuple[tuple[str, ...], ...] = (
    ("20bn-something-something-v2",),
    (),
    ("20bn-something-something-v2", "20bn-something-something-v2"),
    ("videos",),
)


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The templates of `labels.json`, sorted; none without it or without the root."""
    path = lists.find(spec, _LABELS, FOLDERS)
    return () if path is None else tuple(sorted(_read_labels(ListFile.of(path))))


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: a list is not found or not as expected, or has no such class.
    """
    paths = [lists.need(spec, names, FOLDERS) for names in (_LABELS, _TRAIN, _TEST)]
    by_class = _read_split(*(ListFile.of(path) for path in paths))
    if class_name not in by_class:
        raise CatalogError(f"dataset {spec.name!r}: class {class_name!r} is not in {paths[0]}. Mend `classes`.")
    shared = [folder for parts in _TOPS if (folder := scan(spec.root, *parts)) is not None]
    return lists.hold_against(by_class[class_name], own=(), shared=shared)


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    return lists.why_none(spec, (_LABELS, _TRAIN, _TEST), FOLDERS)


@lru_cache(maxsize=8)
def _read_labels(file: ListFile) -> frozenset[str]:
    labels = _read_json(file)
    if not isinstance(labels, dict):
        raise CatalogError(
            f"{file.path}: expected a mapping of templates to numbers, got {str(labels)[:80]}. Get it anew."
        )
    return frozenset(_class_of(template) for template in labels)


@lru_cache(maxsize=4)
def _read_split(labels: ListFile, train: ListFile, test: ListFile) -> Mapping[str, Sequence[Listed]]:
    """The listed files of each class."""
    found: dict[str, list[Listed]] = {name: [] for name in _read_labels(labels)}
    test_entries = _read_entries(test)
    test_ids = {video for video, _, _ in test_entries}
    for file, entries, is_test in ((train, _read_entries(train), False), (test, test_entries, True)):
        seen = set()
        for video, template, number in entries:
            class_name = _class_of(template)
            if class_name not in found:
                raise CatalogError(
                    f"{file.path}, entry {number} (id {video!r}): template {template!r} is not in {labels.path}. "
                    "Both must be of the same release; get them anew."
                )
            if (video, class_name) not in seen and (is_test or video not in test_ids):
                found[class_name].append(Listed(f"{video}.webm", video, is_test))
            seen.add((video, class_name))
    return found


def _read_entries(file: ListFile) -> list[tuple[str, str, int]]:
    """Id, template and number of each entry."""
    entries = _read_json(file)
    if not isinstance(entries, list):
        raise CatalogError(f"{file.path}: expected a list of entries, got {str(entries)[:80]}. Get it anew.")
    rows = []
    for number, entry in enumerate(entries, start=1):
        try:
            video, template = entry["id"], entry["template"]
        except (TypeError, KeyError):
            video = template = None
        if isinstance(video, bool) or not isinstance(video, str | int) or not video or not isinstance(template, str):
            raise CatalogError(
                f"{file.path}, entry {number}: got {str(entry)[:120]}, expected an `id` and a `template`. Mend it."
            )
        rows.append((str(video), template, number))
    return rows


def _class_of(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _read_json(file: ListFile) -> Any:
    try:
        return json.loads(lists.read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(f"{file.path} is not JSON ({error}); get it anew") from error
