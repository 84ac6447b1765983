"""Which classes and clips a dataset has: asks the layout, then checks what must hold for every layout.

Files are listed, never opened. How each layout lies on disk belongs to `layouts`, hashing to `digests`.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol

from lvdd_assets.distill.catalog import CatalogError, ClassListing, DatasetSpec, checked_class
from lvdd_assets.distill.layouts import folders, hmdb51, kinetics400, miniucf, ssv2, ucf101


class Layout(Protocol):
    """What a layout's module has; see `layouts`."""

    SPLITS: tuple[str, ...]
    BY_GROUP: bool
    EXPECTED: dict[str, tuple[int, int]]

    def class_names(self, spec: DatasetSpec) -> tuple[str, ...]:
        """The classes, sorted; none where nothing is found."""

    def list_class(self, spec: DatasetSpec, class_name: str) -> ClassListing:
        """The files of one class."""

    def why_none(self, spec: DatasetSpec) -> str:
        """What to say where there are no classes: what was looked for and what to do."""


LAYOUTS: Mapping[str, Layout] = {
    "folders": folders,
    "ucf101": ucf101,
    "miniucf": miniucf,
    "hmdb51": hmdb51,
    "kinetics400": kinetics400,
    "ssv2": ssv2,
}


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The dataset's classes, sorted: as the registry lists them, else as the layout finds them (none if it cannot).

    Raises:
        CatalogError: a name cannot be a partition key, or two differ only in how Unicode writes them.
    """
    names = spec.classes
    if names is None:
        names = tuple(sorted(checked_class(name) for name in LAYOUTS[spec.layout].class_names(spec)))
    _refuse_twins(spec, names)
    return names


def _refuse_twins(spec: DatasetSpec, names: Iterable[str]) -> None:
    """Nobody can tell them apart, and a database or a file system may hold them for one."""
    by_form: dict[str, str] = {}
    for name in names:
        twin = by_form.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise CatalogError(
                f"dataset {spec.name!r}: classes {twin!a} and {name!a} differ only in how Unicode writes "
                "them. Rename one."
            )


def list_dataset(spec: DatasetSpec) -> dict[str, ClassListing]:
    """All files of a dataset by class; nothing is opened.

    Raises:
        CatalogError: no folder, no classes, none of the listed files, a list or a folder is not as its layout says, a
            test group that no file belongs to, a group on both sides of the split.
    """
    if not spec.root.is_dir():
        hint = "Run `make demo` to render it." if spec.name == "demo" else "Mend `root` in the registry."
        raise CatalogError(f"dataset {spec.name!r}: no folder {spec.root}. {hint}")
    listings = {name: LAYOUTS[spec.layout].list_class(spec, name) for name in class_names(spec)}
    if not listings:
        raise CatalogError(f"dataset {spec.name!r}: {LAYOUTS[spec.layout].why_none(spec)}")
    missing = [name for listing in listings.values() for name in listing.missing]
    if missing and not any(listing.clips for listing in listings.values()):
        raise CatalogError(
            f"dataset {spec.name!r}: of {len(missing)} listed files, none is below {spec.root}, e.g. {missing[0]!r}. "
            f"Mend `root` in the registry, or lay the files out as layout {spec.layout} says."
        )
    _check_groups(spec, listings)
    return listings


def _check_groups(spec: DatasetSpec, listings: Mapping[str, ClassListing]) -> None:
    """A test group that nothing belongs to is a slip of the pen; a group on both sides lets test clips leak."""
    sides: dict[str, set[bool]] = {}
    for listing in listings.values():
        for clip in listing.clips:
            sides.setdefault(clip.group, set()).add(clip.is_test)
    lost = sorted((spec.split.test_groups or frozenset()) - sides.keys())
    if lost:
        some = ", ".join(sorted(sides)[:5])
        raise CatalogError(f"dataset {spec.name!r}: test_groups {lost} match no file; groups found: {some}, …")
    both = sorted(group for group, side in sides.items() if len(side) == 2)
    # With `folders` and no pattern a group is a file's name, and the same name on both sides says nothing.
    if both and (spec.split.named is None or (spec.layout == "folders" and spec.group_pattern is not None)):
        some = ", ".join(both[:5]) + (", …" if len(both) > 5 else "")
        raise CatalogError(
            f"dataset {spec.name!r}: {len(both)} groups have train and test clips: {some}. Move each group to one "
            "side, or mend group_pattern."
        )
