"""Layout `miniucf`: the 50 classes of UCF101 that the video-distillation benchmark uses; files and lists as `ucf101`.

The classes are those of `distill_utils/data/UCF101/ucf50_splits1.csv` in yuz1wan/video_distillation, which lists every
clip of them; they stand in `miniucf_classes.csv` beside this module with their clips in list 1. The literature calls
them "the 50 most common classes". By number of clips they are not: the list has Skijet with 72 train clips and leaves
out Archery with 104, and no rule that gives it is known. The counts add up to the literature's 4,662 and 1,861.
"""

import csv
from functools import lru_cache
from pathlib import Path

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec
from lvdd_assets.distill.layouts import ucf101

SPLITS: tuple[str, ...] = ucf101.SPLITS
BY_GROUP = False
EXPECTED: dict[str, tuple[int, int]] = {"official-1": (4662, 1861)}

_CLASS_LIST = Path(__file__).with_name("miniucf_classes.csv")


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The 50 classes, sorted; none without UCF101's lists or without the root."""
    return tuple(sorted(class_counts())) if ucf101.class_names(spec) else ()


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: the class is none of the 50, or a list is not found or not as expected.
    """
    if class_name not in class_counts():
        raise CatalogError(
            f"dataset {spec.name!r}: class {class_name!r} is none of MiniUCF's 50 ({_CLASS_LIST.name}). Mend "
            "`classes`, or use layout ucf101."
        )
    return ucf101.list_class(spec, class_name)


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    return ucf101.why_none(spec)


@lru_cache(maxsize=1)
def class_counts() -> dict[str, tuple[int, int]]:
    """Train and test clips of each class in list 1."""
    with _CLASS_LIST.open(encoding="utf-8", newline="") as file:
        return {row["class"]: (int(row["train"]), int(row["test"])) for row in csv.DictReader(file)}
