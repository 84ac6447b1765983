"""`remote_files`: fetched once, checked whenever it is used, by one process among many."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from lvdd_assets.distill.download import DownloadError
from lvdd_assets.distill.places import PlaceError, parse_place, replace_bytes
from lvdd_assets.distill.release import ReleaseError, load_release
from lvdd_assets.distill.remote_files import fetch, is_url
from tests.s3_server import s3_server

GOLDEN = Path(__file__).parent / "golden" / "release-v4.zarr.zip"
DATA = GOLDEN.read_bytes()
SHA256 = hashlib.sha256(DATA).hexdigest()


class _Server:
    """Serves what is in `files`, and counts who asks."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/demo.zarr.zip": DATA}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                data = outer.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/demo.zarr.zip"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = _Server()
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def test_a_url_is_opened_as_a_file_is(server: _Server, tmp_path: Path) -> None:
    release = load_release(server.url, cache_folder=tmp_path)
    assert (release.sha256, release.num_clips) == (SHA256, load_release(GOLDEN).num_clips)
    assert release.path.read_bytes() == DATA
    server.files.clear()
    again = load_release(server.url, cache_folder=tmp_path)
    assert again.path == release.path
    assert len(server.asked) == 1


def test_many_at_once_fetch_once(server: _Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(server.url, folder=tmp_path), range(8)))
    assert len(set(paths)) == 1
    assert len(server.asked) == 1


def test_what_was_damaged_since_is_fetched_anew(server: _Server, tmp_path: Path) -> None:
    path = fetch(server.url, folder=tmp_path)
    path.write_bytes(DATA[:-100])
    assert fetch(server.url, folder=tmp_path).read_bytes() == DATA
    path.with_name(f"{path.name}.sha256").unlink()  # killed before the hash was kept
    path.write_bytes(DATA[:100])
    assert fetch(server.url, folder=tmp_path).read_bytes() == DATA
    assert len(server.asked) == 3


def test_another_file_than_the_promised_one_is_refused(server: _Server, tmp_path: Path) -> None:
    assert load_release(server.url, sha256=SHA256.upper(), cache_folder=tmp_path).sha256 == SHA256
    with pytest.raises(DownloadError, match="the checksum is not sha256:0000"):
        load_release(server.url, sha256="0" * 64, cache_folder=tmp_path / "other")
    with pytest.raises(ReleaseError, match=f"its SHA-256 is {SHA256}, expected 0000"):
        load_release(GOLDEN, sha256="0" * 64)


def test_what_is_not_there_is_said_with_its_address(server: _Server, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(DownloadError, match=r"demo.zarr.zip: the server answers 404"):
        load_release(server.url, cache_folder=tmp_path)
    server.files["/demo.zarr.zip"] = b"<html>not found</html>"
    with pytest.raises(ReleaseError, match="is no release"):
        load_release(server.url, cache_folder=tmp_path)


def test_an_object_store(tmp_path: Path) -> None:
    """fsspec's own in memory."""
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/demo.zarr.zip", DATA)
    url = "memory://bucket/demo.zarr.zip"
    path = fetch(url, folder=tmp_path)
    assert path.read_bytes() == DATA
    store.pipe_file("/bucket/demo.zarr.zip", b"another")
    assert fetch(url, folder=tmp_path).read_bytes() == DATA  # kept
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"its SHA-256 is .*expected .*ask for the hash anew, or remove"):
        fetch(url, folder=tmp_path)
    with pytest.raises(DownloadError, match="its SHA-256 is"):
        fetch(url, sha256="0" * 64, folder=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no file at memory://bucket/absent"):
        fetch("memory://bucket/absent", folder=tmp_path)


def test_a_server_that_speaks_s3(tmp_path: Path) -> None:
    with s3_server(tmp_path) as bucket:
        url = f"{bucket}/releases/demo.zarr.zip"
        replace_bytes(parse_place(url), DATA)
        assert load_release(url, sha256=SHA256, cache_folder=tmp_path / "fetched").num_clips == 6
        with pytest.raises(FileNotFoundError, match=r"no file at s3://lvdd/absent\.zip"):
            load_release(f"{bucket}/absent.zip", cache_folder=tmp_path / "fetched")
    assert load_release(url, cache_folder=tmp_path / "fetched").sha256 == SHA256  # the server is gone


def test_a_file_url_is_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a name.zarr.zip"
    file.write_bytes(DATA)
    assert load_release(file.as_uri()).path == file
    assert list(tmp_path.iterdir()) == [file]


def test_credentials_in_a_url_and_unknown_protocols_are_refused(tmp_path: Path) -> None:
    for url in ("s3://key:secret@bucket/a.zip", "nonsense://bucket/a.zip"):
        with pytest.raises(PlaceError) as caught:
            fetch(url, folder=tmp_path)
        assert "secret@" not in str(caught.value)


def test_paths_are_no_urls() -> None:
    assert not is_url("/data/a.zip")
    assert not is_url(r"C:\data\a.zip")
    assert is_url("s3://bucket/a.zip")
