"""Looks at a dataset's folders without ever leaving its root; opens no video.

Names come from lists and folders that strangers made. `scan` is the only way from such a name to the disk: a part that
is not a plain name is no folder, and a link that leads out of the root is refused by name, never followed.
"""

import itertools
import os
import time
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from lvdd_assets.distill.catalog import VIDEO_SUFFIXES, CatalogError, Refusal

OUT_OF_ROOT = "a link that leads out of the dataset's root"
FOLDER_LINK = "a link to a folder; put the folder itself here"
NOT_A_FILE = "a folder, not a file"
NAMELESS_FOLDER = "a folder whose name is not valid UTF-8; rename it"

_RECENT_NS = 2 * 10**9
_fresh = itertools.count(1)


@dataclass(frozen=True)
class Folder:
    """The entries of one folder, names sorted.

    Attributes:
        files: names of the regular files, links to files within the root included.
        folders: names of the folders; links are not among them.
        linked_folders: names of the links to folders, wherever these are.
        refused: why each entry that is in neither `files` nor `folders` is not; names relative to the root.
    """

    path: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    linked_folders: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @cached_property
    def videos(self) -> tuple[str, ...]:
        """Names of the files that have a video's suffix and are not hidden."""
        return tuple(name for name in self.files if is_video(name))

    @cached_property
    def refused_videos(self) -> tuple[Refusal, ...]:
        """What has a video's name and is none, folders included; names relative to the root."""
        refused = [item for item in self.refused if is_video(PurePosixPath(item.file).name)]
        folders = [Refusal(self.relative(name), NOT_A_FILE) for name in self.folders if is_video(name)]
        return tuple(sorted([*refused, *folders], key=lambda item: item.file))

    def relative(self, name: str) -> str:
        """An entry's path relative to the root."""
        return f"{self.path}/{name}" if self.path else name

    def match(self, wanted: Iterable[str], *, any_case: bool) -> dict[str, str]:
        """Which video stands for each wanted file name: itself, else one with the same stem; the others are left out.

        Copies are re-encoded into other containers and, with `any_case`, renamed in case or in how Unicode writes
        them. No video stands for two names.
        """
        names = list(dict.fromkeys(wanted))
        found = {name: name for name in names if name in self._video_set}
        stems = self._folded_stems if any_case else self._stems
        taken = set(found)
        for name in names:
            if name not in found:
                near = [item for item in stems.get(stem(name, any_case=any_case), ()) if item not in taken]
                if near:
                    # The same container first: `a.AVI` rather than `a.mp4` for `A.avi`.
                    suffix = _suffix(name)
                    found[name] = min(near, key=lambda item: (_suffix(item) != suffix, item))
                    taken.add(found[name])
        return found

    def same_folders(self, name: str, *, any_case: bool) -> tuple[str, ...]:
        """The folder of that name, links included; with `any_case` and none such, those that differ only in case."""
        there = (*self.folders, *self.linked_folders)
        if name in there or not any_case:
            return (name,) if name in there else ()
        return tuple(item for item in there if folded(item) == folded(name))

    @cached_property
    def _video_set(self) -> frozenset[str]:
        return frozenset(self.videos)

    @cached_property
    def _stems(self) -> Mapping[str, list[str]]:
        return self._by_stem(any_case=False)

    @cached_property
    def _folded_stems(self) -> Mapping[str, list[str]]:
        return self._by_stem(any_case=True)

    def _by_stem(self, *, any_case: bool) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = {}
        for name in self.videos:
            stems.setdefault(stem(name, any_case=any_case), []).append(name)
        return stems


def folded(name: str) -> str:
    """A name without the differences of case and of Unicode's ways to write the same."""
    return unicodedata.normalize("NFC", name).casefold()


def stem(name: str, *, any_case: bool) -> str:
    """A file's name without its suffix, by which copies in other containers are known; see `Folder.match`."""
    bare = name.rpartition(".")[0] or name
    return folded(bare) if any_case else bare


def is_video(name: str) -> bool:
    """Whether a name has a video's suffix and is not hidden."""
    return not name.startswith(".") and _suffix(name) in VIDEO_SUFFIXES


def _suffix(name: str) -> str:
    # Not by pathlib: 240,000 names are asked.
    return "".join(name.rpartition(".")[1:]).lower()


def is_plain(name: str) -> bool:
    """Whether a name can only mean an entry of the very folder in which it is looked up."""
    return name not in ("", ".", "..") and not any(char in name for char in ("/", os.sep, "\0"))


def scan(root: Path, *parts: str) -> Folder | None:
    """The entries of `root/part/…`; None where there is no such folder, or only a link to one.

    Raises:
        CatalogError: the folder is there and cannot be read.
    """
    if not all(is_plain(part) for part in parts):
        return None
    path = root.joinpath(*parts)
    try:
        # Resolved, it is the same path unless a part is a link.
        if not path.is_dir() or path.resolve() != root.resolve().joinpath(*parts):
            return None
        stat = path.stat()
    except (OSError, ValueError):  # too long a name, or one that the file system cannot have
        return None
    # A folder's time changes with its entries: 100,000 files of one folder are looked at once, not once a class.
    return _scan(root, parts, stat.st_mtime_ns, stat.st_ino, nonce(stat.st_mtime_ns))


def nonce(mtime_ns: int) -> int:
    """A key for caches: 0, or a new number if the change is so recent that the next may bear the same time."""
    return next(_fresh) if 0 <= time.time_ns() - mtime_ns < _RECENT_NS else 0


@lru_cache(maxsize=64)
def _scan(root: Path, parts: tuple[str, ...], mtime_ns: int, inode: int, fresh: int) -> Folder:
    folder, real_root = "/".join(parts), root.resolve()
    files, folders, linked, refused = [], [], [], []
    try:
        with os.scandir(root.joinpath(*parts)) as entries:
            for entry in entries:
                reason = _refusal(real_root, entry)
                if reason:
                    # A name that is not UTF-8 is shown with escapes: nobody could store or print it otherwise.
                    name = os.fsencode(entry.name).decode(errors="backslashreplace")
                    refused.append(Refusal(f"{folder}/{name}" if folder else name, reason))
                    if reason in (OUT_OF_ROOT, FOLDER_LINK) and entry.is_dir():
                        linked.append(name)
                elif entry.is_dir():
                    folders.append(entry.name)
                else:
                    files.append(entry.name)
    except OSError as error:
        raise CatalogError(f"cannot look into {root.joinpath(*parts)}: {error.strerror}") from error
    by_name = sorted(refused, key=lambda item: item.file)
    return Folder(folder, tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(linked)), tuple(by_name))


def _refusal(real_root: Path, entry: os.DirEntry[str]) -> str:
    """Why an entry is neither a file nor a folder to be read; empty if it is."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return NAMELESS_FOLDER if entry.is_dir() else "its name is not valid UTF-8"
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # the latter for links that go round in circles
            return "a link to nothing"
        if not target.is_relative_to(real_root):
            return OUT_OF_ROOT
        if target.is_dir():
            return FOLDER_LINK
    return "" if entry.is_dir() or entry.is_file() else "neither a file nor a folder"
