"""Folders on this machine and prefixes of an object store, behind one set of operations.

A place is a `Path`, or for a URL (`s3://bucket/prefix`) a `UPath` of the same interface. What is needed beyond that
interface stands here: files that are replaced whole, trees that are removed, sizes of all that lies below a folder.
Credentials come from the environment as each object store's own library reads them, never from the URL: a URL is
shown, logged and stored.
"""

import errno
import hashlib
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"
"""A local folder or file, or one of an object store."""

PARTIAL = ".partial"
"""How the name of a file ends that is still being written, here and in zarr's stores."""

_SECRET_WORDS = ("key", "secret", "token", "password", "signature", "credential")


class PlaceError(ValueError):
    """A data root that cannot be used. The message never repeats a URL that may hold a secret."""


def parse_place(text: str) -> Place:
    """A local path, made absolute, or the URL of an object store's prefix.

    Raises:
        PlaceError: the URL holds credentials, or its protocol's library is not installed.
    """
    if "://" not in text:
        return Path(text).absolute()
    parts = urlsplit(text)
    if "@" in parts.netloc or any(word in parts.query.lower() for word in _SECRET_WORDS):
        raise PlaceError(
            f"a {parts.scheme}:// URL with credentials in it would be shown and stored with every run: take them out, "
            "and set them in the environment (for S3 AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        )
    from upath import UPath

    # A listing that is remembered would hide what another process has stored since.
    options: dict[str, Any] = {} if parts.scheme in ("file", "memory") else {"use_listings_cache": False}
    try:
        place: UPath = UPath(text.rstrip("/"), protocol=parts.scheme, **options)
        _ = place.fs
    except (ImportError, ValueError) as error:
        extra = ": pip install 'lvdd-assets[s3]'" if parts.scheme == "s3" else ""
        raise PlaceError(f"{parts.scheme}:// cannot be opened: {error}{extra}") from error
    return Path(place.path) if parts.scheme == "file" else place


def is_local(place: Place) -> bool:
    """Whether it lies in this machine's file system."""
    return isinstance(place, Path)


def read_bytes(place: Place) -> bytes | None:
    """A file's content; None where there is no such file."""
    try:
        if is_local(place):
            return place.read_bytes()
        data: bytes = place.fs.cat_file(place.path)  # type: ignore[union-attr]  # one request; opening it asks first
        return data
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def replace_bytes(place: Place, data: bytes) -> None:
    """Writes a file whole: whoever reads it meanwhile sees the old content or the new."""
    if not isinstance(place, Path):
        place.write_bytes(data)  # object stores show an object when all of it is there
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        partial.write_bytes(data)
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_tree(place: Place) -> None:
    """Removes a folder with all that is in it; what is gone already, or goes meanwhile, is no error."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
        return
    try:
        place.fs.rm(place.path, recursive=True)
    except FileNotFoundError:
        return


def sizes_below(folder: Place) -> dict[str, int]:
    """Bytes of each file below a folder, by its path within it; empty where there is no folder."""
    if isinstance(folder, Path):
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
    root = folder.path.rstrip("/")
    return {name[len(root) + 1 :]: info["size"] for name, info in _details_below(folder).items()}


def size_of(file: Place) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return int(file.stat().st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def folders_in(folder: Place) -> list[str]:
    """Names of the folders in a folder, sorted; empty where there is none."""
    try:
        return sorted(child.name for child in folder.iterdir() if child.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def last_change(folder: Place) -> float:
    """Seconds since 1970 of the latest change below a folder, or of a file; 0.0 where there is nothing."""
    if isinstance(folder, Path):
        times = [path.lstat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists() or path.is_symlink()]
        return max(times, default=0.0)
    changed = [info.get("LastModified") or info.get("mtime") or info.get("created") for info in _details(folder)]
    return max((when.timestamp() if hasattr(when, "timestamp") else float(when) for when in changed if when), default=0)


def cache_folder(root: Place) -> Path:
    """A local folder for what is remembered to save time: the root itself, or one of this user for an object store."""
    if isinstance(root, Path):
        return root
    name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    return Path("~/.cache/lvdd-assets").expanduser() / name


def why_not_written(error: OSError, place: Place) -> str | None:
    """A sentence for a full disk, a quota or a root that may only be read; None for any other error."""
    kept = "What was stored before is still there"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return (
                f"no space left for {place} ({error.strerror}). {kept}: free some space (`lvdd gc` lists what dead "
                "runs have left), then run again"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return (
                f"{place} cannot be written to ({error.strerror}). {kept}: mend its permissions, or set LVDD_DATA_ROOT"
            )
    return None


def _details_below(folder: Any) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = folder.fs.find(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    return found


def _details(place: Any) -> list[dict[str, Any]]:
    return list(_details_below(place).values())
