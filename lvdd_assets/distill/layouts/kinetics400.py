"""Layout `kinetics400`: `<label>/<youtube id>_<start>_<end>.mp4`, times of six digits, and the publisher's CSV files.

The split `official`: rows of the train file train, rows of the validation file are the test clips; the rows of the held
out test split are not used. A video id that both files name is a test clip only, so that none is on both sides.

Every copy lacks videos that are gone from the web: these are `missing`, never an error. Copies differ, and these are
read: folders by label with spaces (the ActivityNet crawler) or underscores (mmaction2), one folder of all clips of a
split (CVDF), either of them below the root or below `train`, `val` and their like, and CVDF's replacements for corrupt
files, which come before these.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec, Refusal
from lvdd_assets.distill.layouts import lists
from lvdd_assets.distill.layouts.lists import Listed, ListFile
from lvdd_assets.distill.layouts.tree import Folder, scan

SPLITS: tuple[str, ...] = ("official",)
BY_GROUP = False
# Rows of the CSV files that CVDF serves (comment in its arrange_by_classes.py, cvdfoundation/kinetics-dataset).
EXPECTED: dict[str, tuple[int, int]] = {"official": (246534, 19906)}

FOLDERS = ("annotations",)
_PREFIXES = ("", "kinetics_", "kinetics-400_", "kinetics400_", "kinetics_400_", "k400_")
_TRAIN = tuple(f"{prefix}train.csv" for prefix in _PREFIXES)
_TEST = tuple(f"{prefix}{name}.csv" for prefix in _PREFIXES for name in ("validate", "val", "validation"))

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_SIDES: Mapping[str, bool | None] = {
    "train": False,
    "validate": True,
    "val": True,
    "validation": True,
    "test": None,
}
_TOPS: tuple[tuple[str, ...], ...] = (
    ("replacement", "replacement_for_corrupted_k400"),
    ("replacement",),
    (),
    ("train",),
    ("val",),
    ("validate",),
    ("validation",),
    ("test",),
    ("videos_train",),
    ("videos_val",),
    ("videos",),
    ("videos", "train"),
    ("videos", "val"),
)

_Row = tuple[ListFile, int, str, str, str, bool]


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The labels of both lists, sorted; none without the lists or without the root."""
    paths = [lists.find(spec, names, FOLDERS) for names in (_TRAIN, _TEST)]
    files = [ListFile.of(path) for path in paths if path is not None]
    return tuple(sorted(_read_labels(files[0]) | _read_labels(files[1]))) if len(files) == 2 else ()


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: a list is not found or not as expected, or has no such label.
    """
    files = [ListFile.of(lists.need(spec, names, FOLDERS)) for names in (_TRAIN, _TEST)]
    by_label, test_ids = _read_rows(*files)
    if class_name not in by_label:
        raise CatalogError(
            f"dataset {spec.name!r}: class {class_name!r} is a label neither of {files[0].path} nor of "
            f"{files[1].path}. Mend `classes`."
        )
    listed: dict[str, Listed] = {}
    for file, line, video, start, end, is_test in by_label[class_name]:
        name = f"{video}_{_seconds(start, file, line):06d}_{_seconds(end, file, line):06d}.mp4"
        listed[name] = Listed(name, video, is_test if is_test or video not in test_ids else None)
    own, shared, refused = _folders(spec, class_name)
    listing = lists.hold_against(tuple(listed.values()), own=own, shared=shared)
    return ClassListing(listing.clips, (*refused, *listing.refused), listing.missing, listing.unused)


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    return lists.why_none(spec, (_TRAIN, _TEST), FOLDERS)


def _folders(spec: DatasetSpec, label: str) -> tuple[list[Folder], list[Folder], list[Refusal]]:
    """The label's own folders, those of all labels, and the label's folders that are links."""
    own, shared, refused = [], [], []
    for parts in _TOPS:
        top = scan(spec.root, *parts)
        if top is None:
            continue
        shared.append(top)
        for name in dict.fromkeys((label, label.replace(" ", "_"))):
            if name in top.linked_folders:
                refused += [item for item in top.refused if item.file == top.relative(name)]
            # `train` is a folder of a split, whatever the labels are.
            elif name in top.folders and (*parts, name) not in _TOPS:
                folder = scan(spec.root, *parts, name)
                own += [folder] if folder is not None else []
    return own, shared, refused


@lru_cache(maxsize=16)
def _read_labels(file: ListFile) -> frozenset[str]:
    """The labels of a list: partition keys are made of them, and need nothing else of its rows."""
    rows = lists.read_rows(file)
    header = _read_header(file, rows)
    label_at, split_at = header.index("label"), header.index("split") if "split" in header else None
    if split_at is None:
        found = {(row[label_at], "") for _, row in rows if len(row) > label_at}
    else:
        found = {(row[label_at], row[split_at]) for _, row in rows if len(row) > max(label_at, split_at)}
    return frozenset(label.strip() for label, split in found if label.strip() and split.strip().lower() != "test")


def _read_header(file: ListFile, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    number, header = next(rows, (1, []))
    columns = [name.strip().lower() for name in header]
    if any(name not in columns for name in _COLUMNS):
        raise lists.malformed(file, number, ",".join(header), f"the columns {', '.join(_COLUMNS)}")
    return columns


@lru_cache(maxsize=4)
def _read_rows(train: ListFile, test: ListFile) -> tuple[Mapping[str, list[_Row]], frozenset[str]]:
    """The rows by label, and the ids of the test clips."""
    by_label: dict[str, list[_Row]] = {}
    test_ids = set()
    for file, side in ((train, False), (test, True)):
        rows = lists.read_rows(file)
        header = _read_header(file, rows)
        label_at, id_at, start_at, end_at = (header.index(name) for name in _COLUMNS)
        split_at = header.index("split") if "split" in header else None
        for number, row in rows:
            try:
                label, video = row[label_at].strip(), row[id_at].strip()
                start, end = row[start_at], row[end_at]
                is_test = side if split_at is None else _SIDES[row[split_at].strip().lower()]
            except (IndexError, KeyError):
                label = video = ""
            if not label or not video:
                if not any(field.strip() for field in row):
                    continue
                raise lists.malformed(file, number, ",".join(row), f"{','.join(header)}; split train, validate or test")
            if is_test is None:
                continue
            by_label.setdefault(label, []).append((file, number, video, start, end, is_test))
            if is_test:
                test_ids.add(video)
    return by_label, frozenset(test_ids)


def _seconds(text: str, file: ListFile, line: int) -> int:
    try:
        value = float(text)
        if value >= 0 and value.is_integer():
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise lists.malformed(file, line, text, "a time in whole seconds")
