"""A download that breaks off goes on where it stopped; nothing wrong ever gets the good name."""

import hashlib
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lvdd_assets.distill.download import DownloadError, download
from lvdd_assets.distill.sources import Archive

SIZE = 3_000_000
LOST = 65_536  # what may be lost of an answer that breaks off


class Server(ThreadingHTTPServer):
    """A web server with one file, which can misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = random.Random(0).randbytes(SIZE)
        self.has_ranges, self.status = True, 200
        self.break_after: list[int] = []  # bytes of an answer after which the connection breaks, one for each answer
        self.pause_seconds = 0.0
        self.num_sent, self.num_requests = 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/videos.rar"

    @property
    def sha256(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.num_requests += 1
        if server.status != 200:
            self.send_error(server.status)
            return
        content, etag = server.content, f'"{hashlib.sha256(server.content).hexdigest()[:16]}"'
        start = 0
        asked = self.headers.get("Range")
        if asked and server.has_ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        limit = server.break_after.pop(0) if server.break_after else len(rest)
        for offset in range(0, min(limit, len(rest)), 50_000):
            part = rest[offset : min(offset + 50_000, limit)]
            self.wfile.write(part)
            server.num_sent += len(part)
            time.sleep(server.pause_seconds)
        if limit < len(rest):
            self.wfile.flush()
            self.connection.shutdown(2)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def _get(server: Server, folder: Path, *, known_hash: str | None = "right", attempts: int = 3) -> Path:
    known_hash = server.sha256 if known_hash == "right" else known_hash
    return download(Archive("videos.rar", server.url, known_hash), folder, attempts=attempts, wait_seconds=0.01)


def test_a_file_is_fetched_once_and_then_only_verified(server: Server, tmp_path: Path) -> None:
    path = _get(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == server.content
    assert [item.name for item in path.parent.iterdir()] == ["videos.rar"]
    assert _get(server, path.parent) == path
    assert server.num_requests == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [SIZE // 2]
    path = _get(server, tmp_path)
    assert path.read_bytes() == server.content
    assert server.num_requests == 2
    assert server.num_sent <= SIZE + LOST


def test_what_one_run_got_serves_the_next(server: Server, tmp_path: Path) -> None:
    server.break_after = [SIZE // 2, 0, 0]
    with pytest.raises(DownloadError, match=r"Run again to go on from there"):
        _get(server, tmp_path, attempts=2)
    assert not (tmp_path / "videos.rar").exists()
    assert SIZE // 2 - LOST <= (tmp_path / "videos.rar.part").stat().st_size <= SIZE // 2
    server.break_after = []
    assert _get(server, tmp_path).read_bytes() == server.content
    assert server.num_sent <= SIZE + LOST


def test_a_killed_process_is_resumed(server: Server, tmp_path: Path) -> None:
    server.pause_seconds = 0.02
    code = textwrap.dedent(
        f"""
        from pathlib import Path
        from lvdd_assets.distill.download import download
        from lvdd_assets.distill.sources import Archive
        download(Archive("videos.rar", {server.url!r}, {server.sha256!r}), Path({str(tmp_path)!r}))
        """
    )
    part = tmp_path / "videos.rar.part"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > SIZE // 4):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    have = part.stat().st_size
    assert have < SIZE
    server.pause_seconds, server.num_sent = 0.0, 0
    time.sleep(0.2)
    before = server.num_sent
    assert _get(server, tmp_path).read_bytes() == server.content
    assert server.num_sent - before <= SIZE - have + 200_000


def test_a_file_that_changed_on_the_server_is_never_joined(server: Server, tmp_path: Path) -> None:
    server.break_after = [SIZE // 2, 0]
    with pytest.raises(DownloadError):
        _get(server, tmp_path, attempts=1)
    server.break_after = []
    server.content = random.Random(1).randbytes(SIZE)
    assert _get(server, tmp_path).read_bytes() == server.content


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.has_ranges, server.break_after = False, [SIZE // 2]
    assert _get(server, tmp_path).read_bytes() == server.content
    assert server.num_sent == SIZE + SIZE // 2


def test_a_wrong_checksum_leaves_nothing_under_the_good_name(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the checksum is not sha256:0000"):
        _get(server, tmp_path, known_hash="sha256:" + "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_without_a_published_checksum_the_first_one_holds(server: Server, tmp_path: Path) -> None:
    path = _get(server, tmp_path, known_hash=None)
    mark = tmp_path / "videos.rar.sha256"
    assert mark.read_text() == f"{server.sha256.removeprefix('sha256:')}  videos.rar\n"
    _get(server, tmp_path, known_hash=None)
    assert server.num_requests == 1
    path.write_bytes(b"damaged")
    assert _get(server, tmp_path, known_hash=None).read_bytes() == server.content
    assert server.num_requests == 2


def test_a_file_of_unknown_origin_is_not_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "videos.rar").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="nobody knows whether it is whole"):
        _get(server, tmp_path, known_hash=None)
    assert (tmp_path / "videos.rar").read_bytes() == b"mine"


@pytest.mark.parametrize(("status", "message"), [(404, "the server answers 404"), (503, "503")])
def test_what_the_server_says_is_passed_on(server: Server, tmp_path: Path, status: int, message: str) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=message):
        _get(server, tmp_path)
    assert server.num_requests == (1 if status == 404 else 3)  # what cannot get better is not tried again


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="Run again"):
        download(Archive("a", "http://127.0.0.1:9/a"), tmp_path, attempts=2, wait_seconds=0.01)
