"""Layout `folders`: `<root>/<class>/**/<clip>`, or `<root>/{train,test}/<class>/**/<clip>` with the split `folders`.

The form in which anybody's videos lie. Clips are split by group: a regular expression on the file's name says which
group a clip is of, and no group is ever on both sides.
"""

import re
from pathlib import PurePosixPath

from lvdd_assets.distill.catalog import CatalogError, ClassListing, ClipFile, DatasetSpec, Refusal
from lvdd_assets.distill.layouts.tree import NAMELESS_FOLDER, is_video, scan

SPLITS: tuple[str, ...] = ("folders",)
BY_GROUP = True
EXPECTED: dict[str, tuple[int, int]] = {}


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The folders on disk, sorted; none if the root is absent. Hidden folders are no classes.

    Raises:
        CatalogError: the name of a folder is no text.
    """
    # A link to a folder is a class as well: its listing then says why it has no clips.
    tops = [top for parts in _tops(spec) if (top := scan(spec.root, *parts)) is not None]
    for item in (item for top in tops for item in top.refused if item.reason == NAMELESS_FOLDER):
        raise CatalogError(f"dataset {spec.name!r}: {item.file} below {spec.root} is {item.reason}")
    found = {name for top in tops for name in (*top.folders, *top.linked_folders)}
    return tuple(sorted(name for name in found if not name.startswith(".")))


def list_class(spec: DatasetSpec, class_name: str) -> ClassListing:
    """The video files of one class.

    Raises:
        CatalogError: the class has no folder, or a file matches no group.
    """
    clips: list[ClipFile] = []
    refused: list[Refusal] = []
    found = False
    for parts in _tops(spec):
        top = scan(spec.root, *parts)
        if top is None:
            continue
        if class_name in top.linked_folders:
            refused += [item for item in top.refused if item.file == top.relative(class_name)]
            found = True
        elif class_name in top.folders:
            _walk(spec, (*parts, class_name), clips, refused)
            found = True
    if not found:
        where = " or ".join(str(spec.root.joinpath(*parts, class_name)) for parts in _tops(spec))
        raise CatalogError(f"dataset {spec.name!r}, class {class_name!r}: no folder {where}")
    return ClassListing(
        tuple(sorted(clips, key=lambda clip: clip.name)), tuple(sorted(refused, key=lambda item: item.file))
    )


def why_none(spec: DatasetSpec) -> str:
    """What to say where there are no classes."""
    forms = " and ".join("/".join(("<root>", *parts, "<class>", "<clip>")) for parts in _tops(spec))
    return f"{spec.root} has no class folders; expected {forms}"


def _tops(spec: DatasetSpec) -> list[tuple[str, ...]]:
    """Where the class folders are, below the root."""
    return [("train",), ("test",)] if spec.split.named == "folders" else [()]


def _walk(spec: DatasetSpec, parts: tuple[str, ...], clips: list[ClipFile], refused: list[Refusal]) -> None:
    folder = scan(spec.root, *parts)
    if folder is None:  # gone, or replaced by a link, since the folder above was looked at
        return
    for name in folder.videos:
        group = _group_of(spec, name)
        is_test = parts[0] == "test" if spec.split.named == "folders" else spec.split.is_test(group)
        clips.append(ClipFile(folder.relative(name), group, is_test))
    refused += folder.refused_videos
    refused += [
        item
        for item in folder.refused
        if item.reason == NAMELESS_FOLDER or PurePosixPath(item.file).name in folder.linked_folders
    ]
    for name in folder.folders:
        if not name.startswith(".") and not is_video(name):
            _walk(spec, (*parts, name), clips, refused)


def _group_of(spec: DatasetSpec, file_name: str) -> str:
    if spec.group_pattern is None:
        return PurePosixPath(file_name).stem
    match = re.search(spec.group_pattern, file_name)
    if match is None or match[1] is None:
        raise CatalogError(
            f"dataset {spec.name!r}: {file_name!r} does not match group_pattern {spec.group_pattern!r}, so its split "
            "is unknown. Mend the pattern or move the file away."
        )
    return match[1]
