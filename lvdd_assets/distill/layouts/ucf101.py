"""Layout `ucf101`: `<root>/<Class>/v_<Class>_g<GG>_c<CC>.avi` and the lists of `ucfTrainTestlist`.

The official splits 1 to 3 of the recognition task. `classInd.txt` says the classes, `trainlist0N.txt` and
`testlist0N.txt` which file is on which side; a file on both is a test clip only.

Case: the publisher's folder and class are `HandstandPushups`, its files and the lists' lines say
`HandstandPushups/v_HandStandPushups_g01_c01.avi`, and many copies rename the one or the other. Names are therefore
matched without regard to case unless a name is there as it is listed.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec, Refusal
from lvdd_assets.distill.layouts import lists
from lvdd_assets.distill.layouts.lists import Listed, ListFile
from lvdd_assets.distill.layouts.tree import Folder, folded, is_plain, scan

SPLITS: tuple[str, ...] = ("official-1", "official-2", "official-3")
BY_GROUP = False
# 13,320 clips in all (the publisher's page); 9,537 train in list 1 (jeffreyyihuang/two-stream-action-recognition).
EXPECTED: dict[str, tuple[int, int]] = {"official-1": (9537, 3783)}

FOLDERS = ("ucfTrainTestlist", "annotations")
_CLASSES = ("classInd.txt",)


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The classes of `classInd.txt`, sorted; none without it or without the root."""
    path = lists.find(spec, _CLASSES, FOLDERS)
    return () if path is None else tuple(sorted(_read_classes(ListFile.of(path))))


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: a list is not found or not as expected, or has no such class.
    """
    files = [lists.need(spec, names, FOLDERS) for names in _lists_of(spec)]
    by_class = _read_split(*(ListFile.of(path) for path in files))
    if class_name not in by_class:
        raise CatalogError(f"dataset {spec.name!r}: class {class_name!r} is not in {files[0]}. Mend `classes`.")
    folders, refused = _class_folders(spec, class_name)
    listing = lists.hold_against(by_class[class_name], own=folders, any_case=True)
    return ClassListing(listing.clips, (*refused, *listing.refused), listing.missing, listing.unused)


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    return lists.why_none(spec, _lists_of(spec), FOLDERS)


def _lists_of(spec: DatasetSpec) -> tuple[tuple[str], ...]:
    number = str(spec.split.named).removeprefix("official-")
    return (_CLASSES, (f"trainlist0{number}.txt",), (f"testlist0{number}.txt",))


def _class_folders(spec: DatasetSpec, class_name: str) -> tuple[list[Folder], list[Refusal]]:
    """The class's folders, and the refusals of those that are links."""
    top = scan(spec.root)
    if top is None:
        raise CatalogError(f"dataset {spec.name!r}: no folder {spec.root}. Mend `root` in the registry.")
    names = top.same_folders(class_name, any_case=True)
    # Of two classes that differ only in case each has the folder of its own name.
    folders = [folder for name in names if (folder := scan(spec.root, name)) is not None]
    return folders, [item for item in top.refused if item.file in names]


@lru_cache(maxsize=8)
def _read_classes(file: ListFile) -> Mapping[str, int]:
    """Label by class."""
    labels: dict[str, int] = {}
    for number, line in lists.read_lines(file):
        label, _, name = line.partition(" ")
        if not re.fullmatch(r"[0-9]+", label) or not name.strip() or name.strip() in labels:
            raise lists.malformed(file, number, line, "`<label> <class>`, each class once")
        labels[name.strip()] = int(label)
    return labels


@lru_cache(maxsize=8)
def _read_split(classes: ListFile, train: ListFile, test: ListFile) -> Mapping[str, tuple[Listed, ...]]:
    """The listed files of each class."""
    labels = _read_classes(classes)
    by_folded = {folded(name): name for name in labels}
    found: dict[str, dict[str, Listed]] = {name: {} for name in labels}
    for file, is_test in ((train, False), (test, True)):
        for number, line in lists.read_lines(file):
            path, label = _read_line(line)
            folder, _, name = path.partition("/")
            if not is_plain(folder) or not is_plain(name):
                raise lists.malformed(
                    file, number, line, "`<Class>/<file>` and a label, the file in the class's folder"
                )
            class_name = folder if folder in labels else by_folded.get(folded(folder))
            if class_name is None:
                raise lists.malformed(file, number, line, f"a class of {classes.path}")
            if label is not None and label != labels[class_name]:
                raise lists.malformed(file, number, line, f"label {labels[class_name]} as in {classes.path}")
            found[class_name][name] = Listed(name, _group_of(name), is_test)
    return {name: tuple(by_name.values()) for name, by_name in found.items()}


def _read_line(line: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*\S)\s+([0-9]+)", line)
    return (match[1], int(match[2])) if match else (line, None)


def _group_of(name: str) -> str:
    """`v_<Class>_g<GG>`: the clips of a group show the same people and place."""
    return re.sub(r"_c[0-9]+\.[^.]+$", "", name)
