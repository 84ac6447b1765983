"""Layout `hmdb51`: `<root>/<class>/*.avi` and the lists `<class>_test_split<N>.txt` of `testTrainMulti_7030_splits`.

A list's line is a file and its flag: 1 train, 2 test, 0 neither. `official-N` keeps to that: 70 train and 30 test clips
a class. `all-but-test-N` also trains on the clips of flag 0, as the video-distillation benchmark does for N = 1; it has
a name of its own so that nobody compares the two.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec
from lvdd_assets.distill.layouts import lists
from lvdd_assets.distill.layouts.lists import Listed, ListFile
from lvdd_assets.distill.layouts.tree import is_plain, scan

_OFFICIAL = ("official-1", "official-2", "official-3")
_ALL_BUT_TEST = ("all-but-test-1", "all-but-test-2", "all-but-test-3")
SPLITS: tuple[str, ...] = (*_OFFICIAL, *_ALL_BUT_TEST)
BY_GROUP = False
# 70 and 30 clips in each of 51 lists (the publisher's split_readme.txt); 6,766 files in each split (gluon-cv.mxnet.io,
# Hugging Face CVML-TueAI/HMDB51), of which the benchmark trains on 6,766 - 1,530 = 5,236 (yuz1wan/video_distillation).
EXPECTED: dict[str, tuple[int, int]] = {
    **dict.fromkeys(_OFFICIAL, (3570, 1530)),
    **dict.fromkeys(_ALL_BUT_TEST, (5236, 1530)),
}

FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "annotations")
_FLAGS: Mapping[str, bool | None] = {"0": None, "1": False, "2": True}


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The classes that have a list, sorted; none without lists or without the root."""
    found = _find(spec)
    return () if found is None else tuple(sorted(found[1]))


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: the lists are not found or not as expected, or there is none of that class.
    """
    found = _find(spec)
    if found is None:
        raise CatalogError(f"dataset {spec.name!r}: {why_none(spec)}")
    if class_name not in found[1]:
        raise CatalogError(
            f"dataset {spec.name!r}: class {class_name!r} has no list {class_name + _ending(spec)!r} in {found[0]}. "
            "Mend `classes`."
        )
    listed = _read_list(ListFile.of(found[0] / f"{class_name}{_ending(spec)}"))
    if spec.split.named in _ALL_BUT_TEST:
        listed = tuple(Listed(item.file, item.group, bool(item.is_test)) for item in listed)
    top, folder = scan(spec.root), scan(spec.root, class_name)
    listing = lists.hold_against(listed, own=[] if folder is None else [folder], any_case=True)
    links = [item for item in top.refused if item.file == class_name] if top is not None else []
    return ClassListing(listing.clips, (*links, *listing.refused), listing.missing, listing.unused)


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    return lists.absent(spec, (f"<class>{_ending(spec)}",), FOLDERS)


def _ending(spec: DatasetSpec) -> str:
    return f"_test_split{str(spec.split.named)[-1]}.txt"


def _find(spec: DatasetSpec) -> tuple[Path, frozenset[str]] | None:
    """The folder of the lists, and their classes."""
    if not spec.root.is_dir():
        return None
    for place in lists.places(spec, FOLDERS):
        if place.is_dir():
            classes = _classes_in(ListFile.of(place), _ending(spec))
            if classes:
                return place, classes
    return None


@lru_cache(maxsize=32)
def _classes_in(folder: ListFile, ending: str) -> frozenset[str]:
    try:
        names = [path.name for path in folder.path.iterdir()]
    except OSError as error:
        raise CatalogError(f"cannot look into {folder.path}: {error.strerror}") from error
    return frozenset(name.removesuffix(ending) for name in names if name.endswith(ending) and name != ending)


@lru_cache(maxsize=256)
def _read_list(file: ListFile) -> tuple[Listed, ...]:
    flags: dict[str, bool | None] = {}
    for number, line in lists.read_lines(file):
        name, _, flag = line.rpartition(" ")
        name = name.strip()
        if flag not in _FLAGS or not is_plain(name):
            raise lists.malformed(file, number, line, "`<file> <flag>`, the file in the class's folder, flag 0, 1 or 2")
        if flags.setdefault(name, _FLAGS[flag]) != _FLAGS[flag]:
            raise lists.malformed(file, number, line, "one flag for each file; this one has another above")
    # The names do not say reliably what a clip was cut from, so that each is a group of its own.
    return tuple(Listed(name, PurePosixPath(name).stem, is_test) for name, is_test in flags.items())
