"""A file behind a URL as a file on this machine: fetched once, whole or not there at all, checked whenever it is used.

`http://` and `https://` go through `download`, which resumes; every other protocol (`s3://`, `gs://` …) through fsspec,
by the library that it names. The hash of what was fetched first is kept beside the file and holds from then on.
"""

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lvdd_assets.distill.download import DownloadError, download
from lvdd_assets.distill.file_locks import locked
from lvdd_assets.distill.places import parse_place, read_bytes, replace_bytes
from lvdd_assets.distill.sources import Archive

DEFAULT_FOLDER = Path("~/.cache/lvdd-assets/releases")


def is_url(text: str) -> bool:
    """Whether it names something behind a protocol, not a path."""
    return "://" in text


def fetch(url: str, *, sha256: str | None = None, folder: Path | None = None) -> Path:
    """The file that a URL names; a second call asks no server.

    Several processes may ask at once: one fetches, the others wait for it.

    Args:
        url: `https://…`, `s3://bucket/…`, `file:///…` or any other protocol that fsspec knows.
        sha256: the hash, 64 hexadecimal digits, that the file must have; by default that of the first download.
        folder: where fetched files are kept; `~/.cache/lvdd-assets/releases` by default.

    Raises:
        DownloadError: it could not be had, or is not the file that was promised.
        PlaceError: the protocol's library is missing, or credentials stand in the URL.
        FileNotFoundError: an object store has no such file.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return Path(unquote(urlsplit(url).path))
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1].lstrip(".").replace("\\", "_") or "release"
    kept = (folder or DEFAULT_FOLDER).expanduser() / hashlib.sha256(url.encode()).hexdigest()[:16]
    with locked(kept / ".lock"):
        mark = kept / f"{name}.sha256"
        if not sha256 and not mark.exists():
            (kept / name).unlink(missing_ok=True)  # killed before its hash was kept
        if scheme in ("http", "https"):
            return download(Archive(name, url, f"sha256:{sha256.lower()}" if sha256 else None), kept)
        return _copy(url, kept / name, mark, sha256)


def _copy(url: str, target: Path, mark: Path, sha256: str | None) -> Path:
    """A file of an object store."""
    expected = sha256 or (mark.read_text().split()[0] if mark.exists() else None)
    if expected is not None and target.exists() and _hash(target.read_bytes()) == expected.lower():
        return target
    data = read_bytes(parse_place(url))
    if data is None:
        raise FileNotFoundError(f"no file at {url}")
    got = _hash(data)
    if expected is not None and got != expected.lower():
        raise DownloadError(
            f"{url}: its SHA-256 is {got}, expected {expected}. The file was changed by its publisher or damaged: ask "
            f"for the hash anew, or remove {mark.parent} to take it as it is now"
        )
    replace_bytes(target, data)
    mark.write_text(f"{got}  {target.name}\n")
    return target


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
