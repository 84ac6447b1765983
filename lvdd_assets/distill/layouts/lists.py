"""The lists that publishers ship with their videos: found, read once, and held against the files that are there.

Text, CSV and JSON as such; what the lines of one publisher mean belongs to that layout's module. A list says which
names are looked for among the entries of a folder; no path is ever made of what it says.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lvdd_assets.distill.catalog import CatalogError, ClassListing, ClipFile, DatasetSpec, Refusal
from lvdd_assets.distill.layouts.tree import Folder, nonce, stem


@dataclass(frozen=True)
class ListFile:
    """A list as it stands now: a key for caches that ends with the file's next change."""

    path: Path
    mtime_ns: int
    size: int
    fresh: int

    @classmethod
    def of(cls, path: Path) -> "ListFile":
        """The file or folder at that path.

        Raises:
            CatalogError: it cannot be looked at.
        """
        try:
            stat = path.stat()
        except OSError as error:
            raise CatalogError(f"cannot read {path}: {error.strerror}") from error
        return cls(path, stat.st_mtime_ns, stat.st_size, nonce(stat.st_mtime_ns))


@dataclass(frozen=True)
class Listed:
    """A video that a list names.

    Attributes:
        file: its file's name, without folders.
        group: what it was cut from, as far as its name says.
        is_test: the side of the split; None if the split leaves it out.
    """

    file: str
    group: str
    is_test: bool | None


def places(spec: DatasetSpec, folders: Sequence[str]) -> tuple[Path, ...]:
    """Where a dataset's lists may be: in the folder that the registry names, else inside or beside the root."""
    if spec.annotations is not None:
        return (spec.annotations, *(spec.annotations / name for name in folders))
    beside = spec.root.parent
    return (spec.root, *(spec.root / name for name in folders), *(beside / name for name in folders), beside)


def find(spec: DatasetSpec, names: Sequence[str], folders: Sequence[str]) -> Path | None:
    """The first file of one of these names; None if there is none, or no dataset."""
    if not spec.root.is_dir():
        return None
    paths = (place / name for place in places(spec, folders) for name in names)
    return next((path for path in paths if path.is_file()), None)


def need(spec: DatasetSpec, names: Sequence[str], folders: Sequence[str]) -> Path:
    """As `find`.

    Raises:
        CatalogError: there is none.
    """
    path = find(spec, names, folders)
    if path is None:
        raise CatalogError(f"dataset {spec.name!r}: {absent(spec, names, folders)}")
    return path


def absent(spec: DatasetSpec, names: Sequence[str], folders: Sequence[str]) -> str:
    """What to say where a list is not found."""
    if not spec.root.is_dir():
        return f"no folder {spec.root}. Mend `root` in the registry."
    looked = ", ".join(str(place) for place in places(spec, folders))
    return (
        f"no {' or '.join(names)}; looked in {looked}. `lvdd fetch {spec.layout}` prints where the publisher's lists "
        "are to be had; put them there, or set `annotations` in the registry to the folder that has them."
    )


def why_none(spec: DatasetSpec, lists: Sequence[Sequence[str]], folders: Sequence[str]) -> str:
    """What to say where lists give no classes: which of them is not found, else that they are empty."""
    lacking = next((names for names in lists if find(spec, names, folders) is None), None)
    if lacking is not None:
        return absent(spec, lacking, folders)
    return f"{find(spec, lists[0], folders)} lists nothing; get it anew, `lvdd fetch {spec.layout}` prints where"


def read_text(file: ListFile) -> str:
    """A list's text, without a byte order mark.

    Raises:
        CatalogError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CatalogError(f"cannot read {file.path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"{file.path} is not UTF-8 text ({error.reason} at byte {error.start}); get it anew"
        ) from error


def read_lines(file: ListFile) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    # Not by splitlines: names may have the rarer line separators of Unicode.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def read_rows(file: ListFile) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of a CSV file that is not blank, the header included.

    Raises:
        CatalogError: it is not CSV.
    """
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise CatalogError(f"{file.path}, line {reader.line_num}: not CSV ({error}); mend the line") from error


def malformed(file: ListFile, line: int, got: object, expected: str) -> CatalogError:
    """The error for a line that does not say what it should."""
    return CatalogError(f"{file.path}, line {line}: got {str(got)[:120]!r}, expected {expected}. Mend the line.")


def hold_against(
    listed: Sequence[Listed], *, own: Sequence[Folder], shared: Sequence[Folder] = (), any_case: bool = False
) -> ClassListing:
    """A class's list and what is there of it.

    Args:
        listed: no file twice.
        own: folders that have videos of this class alone: what the list does not name there is unused.
        shared: folders that have videos of all classes.
        any_case: whether names may differ in case from the list's.
    """
    found: dict[str, str] = {}
    unused: list[str] = []
    refused: list[Refusal] = []
    for folder in own:
        taken = _match(listed, folder, found, any_case)
        unused += [folder.relative(name) for name in folder.videos if name not in taken]
        refused += folder.refused_videos
    stems = {stem(item.file, any_case=any_case) for item in listed}
    for folder in shared:
        _match(listed, folder, found, any_case)
        refused += [item for item in folder.refused_videos if _refused_stem(item, any_case) in stems]
    known = {_refused_stem(item, any_case) for item in refused}
    clips, missing = [], []
    for item in listed:
        if item.is_test is None:
            unused += [found[item.file]] if item.file in found else []
        elif item.file in found:
            clips.append(ClipFile(found[item.file], item.group, item.is_test))
        elif stem(item.file, any_case=any_case) not in known:
            missing.append(item.file)
    return ClassListing(
        clips=tuple(sorted(clips, key=lambda clip: clip.name)),
        refused=tuple(sorted(refused, key=lambda item: item.file)),
        missing=tuple(sorted(missing)),
        unused=tuple(sorted(unused)),
    )


def _match(listed: Sequence[Listed], folder: Folder, found: dict[str, str], any_case: bool) -> set[str]:
    """Adds what of the list is in a folder to `found`; returns the folder's names that are taken."""
    here = folder.match([item.file for item in listed if item.file not in found], any_case=any_case)
    found |= {name: folder.relative(match) for name, match in here.items()}
    return set(here.values())


def _refused_stem(item: Refusal, any_case: bool) -> str:
    return stem(PurePosixPath(item.file).name, any_case=any_case)
