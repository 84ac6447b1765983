"""Downloads a publisher's file through pooch: resumed where it was interrupted, verified, whole or not there at all.

What there is to download stands in `sources`. While a file is on its way it lies beside its place as `<name>.part`,
with what the server said of it in `<name>.part.json`; pieces of two different files are never joined.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lvdd_assets.distill.sources import Archive

# What is lost of an answer that breaks off.
_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 60


class DownloadError(OSError):
    """A file could not be had, or is not the one that was promised. What was fetched is kept for the next try."""


def download(
    archive: Archive,
    folder: Path,
    *,
    attempts: int = 5,
    wait_seconds: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The file in the folder; what lies there already and is right is not fetched again.

    Where the publisher gives no checksum, that of the first download is kept as `<name>.sha256` and holds from then on.

    Args:
        archive: what to download.
        folder: where to; created.
        attempts: tries in a row that may bring nothing new before giving up.
        wait_seconds: pause before the first repetition, doubled for each more.
        progress: told the bytes that are there and the bytes in all (0 where the server does not say).

    Raises:
        DownloadError: with what was got, what was expected and what to do.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # what is fetched is said by the caller
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.file_name
    mark = folder / f"{archive.file_name}.sha256"
    known_hash = archive.known_hash or (f"sha256:{mark.read_text().split()[0]}" if mark.exists() else None)
    if target.exists() and known_hash is None:
        raise DownloadError(f"{target} is there, but nobody knows whether it is whole. Delete it to fetch it anew.")
    fetcher = _Resumer(folder / f"{archive.file_name}.part", attempts, wait_seconds, progress)
    try:
        pooch.retrieve(archive.url, known_hash, fname=archive.file_name, path=folder, downloader=fetcher)
    except ValueError as error:  # pooch's word for a wrong checksum; the file does not get its name
        fetcher.forget()
        raise DownloadError(
            f"{archive.url}: the checksum is not {known_hash}. The file was changed by its publisher or damaged on the "
            "way: run again, and compare with the publisher's page if it stays so."
        ) from error
    fetcher.forget()
    if archive.known_hash is None and not mark.exists():
        mark.write_text(f"{pooch.file_hash(str(target))}  {archive.file_name}\n")
    return target


class _Resumer:
    """A downloader for pooch that goes on where the last one stopped."""

    def __init__(
        self, part: Path, attempts: int, wait_seconds: float, progress: Callable[[int, int], None] | None
    ) -> None:
        self._part = part
        self._about = part.with_name(f"{part.name}.json")
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._progress = progress

    def __call__(self, url: str, output_file: str | IO[bytes], pooch: object, check_only: bool = False) -> bool | None:
        """Brings the whole file to where pooch wants it, which then checks it and gives it its name."""
        failures, have = 0, -1
        while True:
            try:
                self._fetch_rest(url)
                break
            except DownloadError:
                raise
            except OSError as error:  # requests' errors are OSErrors
                size = self._size()
                failures = 1 if size > have else failures + 1
                have = size
                if failures >= self._attempts:
                    raise DownloadError(
                        f"{url}: {error} ({size} bytes are kept in {self._part}). Run again to go on from there."
                    ) from error
                time.sleep(self._wait_seconds * 2 ** (failures - 1))
        self._part.replace(str(output_file))
        return None

    def forget(self) -> None:
        """Removes what was kept for resuming."""
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _fetch_rest(self, url: str) -> None:
        import requests

        have, about = self._size(), self._read_about(url)
        if have and about.get("total") == have:
            return
        # Without a word of the server on what the beginning was part of, the rest could be another file's.
        validator = about.get("validator")
        headers = {"Accept-Encoding": "identity"}
        if have and validator:
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
            if 400 <= answer.status_code < 500 and answer.status_code != 429:
                raise DownloadError(
                    f"{url}: the server answers {answer.status_code} {answer.reason}. See the publisher's page for "
                    "where the file is now."
                )
            answer.raise_for_status()
            start, total = self._place(answer, have)
            tag = answer.headers.get("ETag", "")
            strong = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
            self._about.write_text(json.dumps({"url": url, "validator": strong, "total": total}))
            with self._part.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                for chunk in answer.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    if self._progress:
                        self._progress(file.tell(), total or 0)
        if total is not None and self._size() != total:
            raise ConnectionError(f"the connection broke off after {self._size()} of {total} bytes")

    @staticmethod
    def _place(answer: Any, have: int) -> tuple[int, int | None]:
        """Where the answer's bytes belong, and the file's whole size if the server says."""
        if answer.status_code == 206:
            unit, _, said = answer.headers.get("Content-Range", "").partition(" ")
            start, total = said.partition("-")[0], said.rpartition("/")[2]
            if unit != "bytes" or start != str(have) or not total.isdecimal():
                raise ConnectionError(f"the server sent {said or 'an unnamed range'} instead of the rest from {have}")
            return have, int(total)
        length = answer.headers.get("Content-Length")
        return 0, int(length) if length and length.isdecimal() else None

    def _read_about(self, url: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            about = json.loads(self._about.read_text())
            if isinstance(about, dict) and about.get("url") == url:
                return about
        return {}
