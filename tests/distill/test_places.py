"""Local folders and object stores behave alike; URLs never carry secrets."""

import errno
import threading
import time
from pathlib import Path

import pytest

from lvdd_assets.distill import places
from lvdd_assets.distill.places import PlaceError, parse_place


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> places.Place:
    return parse_place(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}/root")


def test_both_kinds_do_the_same(place: places.Place) -> None:
    assert places.read_bytes(place / "a") is None
    assert places.sizes_below(place / "a") == {}
    assert places.folders_in(place / "a") == []
    places.replace_bytes(place / "a/b.txt", b"one")
    places.replace_bytes(place / "a/b.txt", b"three")
    places.replace_bytes(place / "a/c/d", b"")
    assert places.read_bytes(place / "a/b.txt") == b"three"
    assert places.read_bytes(place / "a") is None
    assert places.sizes_below(place) == {"a/b.txt": 5, "a/c/d": 0}
    assert places.folders_in(place) == ["a"]
    assert places.folders_in(place / "a") == ["c"]
    assert places.size_of(place / "a/b.txt") == 5
    assert places.size_of(place / "a/x") is None
    assert abs(places.last_change(place) - time.time()) < 60
    places.remove_tree(place / "a")
    places.remove_tree(place / "a")
    assert places.sizes_below(place) == {}


def test_a_relative_path_is_made_absolute_and_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert parse_place("data") == Path("data").absolute()
    assert parse_place(f"file://{tmp_path}") == tmp_path
    assert places.is_local(parse_place("data"))
    assert not places.is_local(parse_place("memory://a"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAEXAMPLE:hidden@bucket/x",
        "s3://hidden@bucket",
        "s3://bucket/x?AWSSecretKey=hidden",
        "https://host/x?X-Amz-Signature=hidden",
        "s3://bucket/x?token=hidden",
    ],
)
def test_a_url_with_credentials_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(PlaceError, match="set them in the environment") as caught:
        parse_place(url)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_protocol_is_an_error() -> None:
    with pytest.raises(PlaceError, match="foo:// cannot be opened"):
        parse_place("foo://bucket")


def test_a_replaced_file_is_never_half(tmp_path: Path) -> None:
    """Read as fast as can be while it is replaced by contents of different lengths."""
    path, stop = tmp_path / "mark", threading.Event()
    contents = [bytes([value]) * (1 + 50_000 * value) for value in range(4)]
    places.replace_bytes(path, contents[0])

    def write() -> None:
        for turn in range(200):
            places.replace_bytes(path, contents[turn % 4])
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        assert places.read_bytes(path) in contents
    writer.join()
    assert [file.name for file in tmp_path.iterdir()] == ["mark"]


def test_what_is_remembered_lies_on_this_machine(tmp_path: Path) -> None:
    assert places.cache_folder(tmp_path) == tmp_path
    one, other = places.cache_folder(parse_place("memory://a")), places.cache_folder(parse_place("memory://b"))
    assert isinstance(one, Path)
    assert one != other
    assert one == places.cache_folder(parse_place("memory://a"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left for /d .*What was stored before is still there: free some space"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "/d cannot be written to .*What was stored before is still there: mend its permissions"),
        (errno.EACCES, "cannot be written to"),
    ],
)
def test_errors_of_the_disk_are_sentences(number: int, words: str) -> None:
    import os
    import re

    sentence = places.why_not_written(OSError(number, os.strerror(number)), Path("/d"))
    assert sentence is not None
    assert re.search(words, sentence)
    assert places.why_not_written(OSError(errno.ENOENT, "no such file"), Path("/d")) is None
