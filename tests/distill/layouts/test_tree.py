"""Names of strangers never lead out of the root, and what changed on disk is seen."""

import os
import unicodedata
from pathlib import Path

import pytest

from lvdd_assets.distill.layouts import tree
from lvdd_assets.distill.layouts.tree import FOLDER_LINK, NOT_A_FILE, OUT_OF_ROOT, Folder, scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _reasons(folder: Folder | None) -> dict[str, str]:
    assert folder is not None
    return {item.file: item.reason for item in folder.refused}


def test_entries_are_sorted_and_told_apart(root: Path) -> None:
    _touch(root / "b.MP4", root / "a.webm", root / "notes.txt", root / ".hidden.mp4", root / "sub/x.avi")
    folder = scan(root)
    assert folder is not None
    assert folder.files == (".hidden.mp4", "a.webm", "b.MP4", "notes.txt")
    assert folder.videos == ("a.webm", "b.MP4")
    assert folder.folders == ("sub",)
    below = scan(root, "sub")
    assert below is not None
    assert below.relative("x.avi") == "sub/x.avi"


def test_links_out_of_the_root_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    _touch(tmp_path / "secret.mp4", tmp_path / "elsewhere/x.mp4")
    (root / "file.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "climb.mp4").symlink_to("../secret.mp4")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    folder = scan(root)
    assert folder is not None
    assert folder.files == folder.folders == ()
    assert _reasons(folder) == dict.fromkeys(("climb.mp4", "file.mp4", "folder"), OUT_OF_ROOT)
    assert scan(root, "folder") is None


def test_links_within_the_root(root: Path) -> None:
    _touch(root / "a/x.mp4")
    (root / "same.mp4").symlink_to("a/x.mp4")
    (root / "b").symlink_to("a")
    (root / "loop").symlink_to("loop")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    folder = scan(root)
    assert folder is not None
    assert folder.files == ("same.mp4",)
    assert folder.folders == ("a",)
    assert folder.linked_folders == ("b",)
    reasons = _reasons(folder)
    assert reasons["b"] == FOLDER_LINK
    assert reasons["gone.mp4"] == "a link to nothing"
    assert "loop" in reasons
    assert scan(root, "b") is None  # a folder is listed under one name only


def test_what_is_no_file(root: Path) -> None:
    os.mkfifo(root / "pipe.mp4")
    (root / "folder.avi").mkdir()
    folder = scan(root)
    assert folder is not None
    assert [(item.file, item.reason) for item in folder.refused_videos] == [
        ("folder.avi", NOT_A_FILE),
        ("pipe.mp4", "neither a file nor a folder"),
    ]


def test_a_name_that_is_no_text_is_shown_with_escapes(root: Path) -> None:
    try:
        (root / os.fsdecode(b"\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    folder = scan(root)
    assert folder is not None
    assert folder.files == ()
    assert [item.file for item in folder.refused_videos] == ["\\xff.mp4"]
    _reasons(folder)["\\xff.mp4"].encode()


@pytest.mark.parametrize(
    "parts", [("..",), (".",), ("",), ("a/b",), ("a\\b",), ("/etc",), ("nul\0",), ("x" * 5000,), ("a", "..")], ids=repr
)
def test_only_plain_names_are_folders(root: Path, parts: tuple[str, ...]) -> None:
    _touch(root / "a/b/x.mp4", root.parent / "outside.mp4")
    assert scan(root, *parts) is None


def test_nothing_outside_the_root_is_looked_into(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(root / "a/x.mp4", tmp_path / "outside/sub/x.mp4")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to("a")
    looked_into: list[Path] = []
    scandir = os.scandir

    def spy(path: Path) -> object:
        looked_into.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    assert scan(root) is not None
    assert scan(root, "a") is not None
    for parts in (("out",), ("out", "sub"), ("in",), ("..",), ("..", "outside"), (str(tmp_path / "outside"),)):
        assert scan(root, *parts) is None
    assert looked_into == [root, root / "a"]


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    _touch(root / "a/x.mp4")
    (tmp_path / "link").symlink_to(root)
    folder = scan(tmp_path / "link", "a")
    assert folder is not None
    assert folder.files == ("x.mp4",)


def test_changes_are_seen_at_once(root: Path) -> None:
    """The listing is remembered by the folder's time, which a quick change may leave as it was."""
    for index in range(50):
        path = root / f"{index}.mp4"
        path.touch()
        there = scan(root)
        assert there is not None
        assert there.files == (path.name,)
        path.unlink()
        gone = scan(root)
        assert gone is not None
        assert gone.files == ()


def test_a_change_within_one_tick_of_the_clock_is_seen(root: Path) -> None:
    _touch(root / "a.mp4")
    stat = root.stat()
    first = scan(root)
    _touch(root / "b.mp4")
    os.utime(root, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a file system with a coarse clock leaves it
    second = scan(root)
    assert first is not None
    assert second is not None
    assert (first.files, second.files) == (("a.mp4",), ("a.mp4", "b.mp4"))


def test_what_replaces_a_file_is_seen_at_once(root: Path) -> None:
    path = root / "a.mp4"
    for _ in range(20):
        path.touch()
        there = scan(root)
        assert there is not None
        assert there.files == ("a.mp4",)
        path.unlink()
        path.symlink_to("/etc/hostname")
        assert _reasons(scan(root)).keys() == {"a.mp4"}
        path.unlink()
        path.mkdir()
        folder = scan(root)
        assert folder is not None
        assert (folder.files, folder.folders) == ((), ("a.mp4",))
        path.rmdir()


def test_an_unchanged_folder_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(root / "a.mp4")
    os.utime(root, (1_000_000_000, 1_000_000_000))
    first = scan(root)
    monkeypatch.setattr(tree, "_refusal", lambda *_: pytest.fail("looked again"))
    assert scan(root) is first


# ---- names in lists and names on disk -----------------------------------------------------------------------------


def test_the_name_itself_comes_first(root: Path) -> None:
    folder = Folder("", files=("a.AVI", "a.avi", "a.mp4"))
    assert folder.match(["a.avi"], any_case=True) == {"a.avi": "a.avi"}


def test_another_container_stands_for_the_listed_file() -> None:
    folder = Folder("", files=("a.mp4", "b.MP4", "c.txt"))
    assert folder.match(["a.avi", "b.avi", "c.avi"], any_case=False) == {"a.avi": "a.mp4", "b.avi": "b.MP4"}


def test_case_and_unicode_count_unless_they_may_differ() -> None:
    composed, decomposed = (unicodedata.normalize(form, "É.avi") for form in ("NFC", "NFD"))
    folder = Folder("", files=("v_handstandpushups_g01.avi", decomposed))
    wanted = ["v_HandStandPushups_g01.avi", composed]
    assert folder.match(wanted, any_case=False) == {}
    assert folder.match(wanted, any_case=True) == dict(zip(wanted, folder.files, strict=True))


def test_the_same_container_comes_before_another() -> None:
    folder = Folder("", files=("A.mp4", "a.AVI"))
    assert folder.match(["A.avi"], any_case=True) == {"A.avi": "a.AVI"}


def test_no_video_stands_for_two_names() -> None:
    folder = Folder("", files=("a.avi",))
    assert folder.match(["a.avi", "A.avi", "a.mp4"], any_case=True) == {"a.avi": "a.avi"}
    assert folder.match(["A.avi", "a.avi"], any_case=True) == {"a.avi": "a.avi"}


def test_folders_that_differ_in_case() -> None:
    folder = Folder("", folders=("HandStandPushups", "Jump"), linked_folders=("jump",))
    assert folder.same_folders("HandstandPushups", any_case=True) == ("HandStandPushups",)
    assert folder.same_folders("HandstandPushups", any_case=False) == ()
    assert folder.same_folders("Jump", any_case=True) == ("Jump",)
    assert folder.same_folders("JUMP", any_case=True) == ("Jump", "jump")
