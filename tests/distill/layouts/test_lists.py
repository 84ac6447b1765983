"""Publishers' lists: found where they may lie, read as they come, and held against what is on disk."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError, Refusal
from lvdd_assets.distill.layouts import lists
from lvdd_assets.distill.layouts.lists import Listed, ListFile
from lvdd_assets.distill.layouts.tree import Folder
from tests.distill.layouts.conftest import MakeSpec

NAMES, FOLDERS = ("list.txt", "other.txt"), ("lists",)


def _file(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_where_a_list_may_lie(tmp_path: Path, make_spec: MakeSpec) -> None:
    """Inside the root, in a folder inside or beside it, beside it: the nearer first."""
    spec = make_spec("ucf101", "official-1")
    spec.root.mkdir()
    with pytest.raises(CatalogError, match=r"no list.txt or other.txt; looked in .*`lvdd fetch ucf101` prints where"):
        lists.need(spec, NAMES, FOLDERS)
    for place in ("list.txt", "lists/list.txt", "videos/lists/other.txt", "videos/list.txt"):
        path = _file(tmp_path / place)
        assert lists.need(spec, NAMES, FOLDERS) == path


def test_the_registry_s_folder_is_the_only_place_if_it_is_named(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec("ucf101", "official-1", annotations=tmp_path / "mine")
    _file(spec.root / "list.txt")
    assert lists.find(spec, NAMES, FOLDERS) is None
    for place in ("lists/other.txt", "list.txt"):
        path = _file(tmp_path / "mine" / place)
        assert lists.find(spec, NAMES, FOLDERS) == path


def test_without_the_dataset_there_are_no_lists(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec("ucf101", "official-1")
    _file(tmp_path / "list.txt")
    assert lists.find(spec, NAMES, FOLDERS) is None
    assert "Mend `root` in the registry" in lists.absent(spec, NAMES, FOLDERS)


def test_an_empty_list_is_told_from_an_absent_one(make_spec: MakeSpec) -> None:
    spec = make_spec("ssv2")
    path = _file(spec.root / "list.txt", b"")
    assert (
        lists.why_none(spec, [NAMES], FOLDERS) == f"{path} lists nothing; get it anew, `lvdd fetch ssv2` prints where"
    )
    assert "no more.txt; looked in" in lists.why_none(spec, [NAMES, ["more.txt"]], FOLDERS)


def test_lines_as_they_come(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", "\ufeffone\r\n\r\n  two \nthree\u2028still three".encode())
    assert list(lists.read_lines(ListFile.of(path))) == [(1, "one"), (3, "two"), (4, "three\u2028still three")]


def test_text_that_is_not_utf_8_says_where(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", b"abc\xff")
    with pytest.raises(CatalogError, match=r"a.txt is not UTF-8 text .*at byte 3"):
        lists.read_text(ListFile.of(path))


def test_rows_have_the_number_of_their_line(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.csv", b'a,b\r\n\r\n"1\n2",3\n')
    assert list(lists.read_rows(ListFile.of(path))) == [(1, ["a", "b"]), (4, ["1\n2", "3"])]
    path = _file(tmp_path / "b.csv", b'a,b\n"x"y,z\n')
    with pytest.raises(CatalogError, match=r"b.csv, line 2: not CSV"):
        list(lists.read_rows(ListFile.of(path)))


def test_a_malformed_line_is_shown_with_its_number(tmp_path: Path) -> None:
    file = ListFile.of(_file(tmp_path / "a.txt"))
    message = str(lists.malformed(file, 7, "oops" * 1000, "`<file> <flag>`"))
    assert message.startswith(f"{file.path}, line 7: got 'oopsoops")
    assert message.endswith("expected `<file> <flag>`. Mend the line.")
    assert len(message) < len(str(file.path)) + 250  # a list of one endless line does not flood the log


def test_a_changed_list_is_another_key(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", b"one")
    first = ListFile.of(path)
    _file(path, b"two")
    assert ListFile.of(path) != first
    with pytest.raises(CatalogError, match=r"cannot read .*nothing"):
        ListFile.of(tmp_path / "nothing")


LISTED = (Listed("a.avi", "a", False), Listed("b.avi", "b", True), Listed("c.avi", "c", None))


def test_a_list_held_against_a_folder_of_its_own() -> None:
    own = Folder("run", files=("a.avi", "c.avi", "extra.avi", "notes.txt"))
    listing = lists.hold_against(LISTED, own=[own])
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [("run/a.avi", False)]
    assert listing.missing == ("b.avi",)
    assert listing.unused == ("run/c.avi", "run/extra.avi")


def test_a_list_held_against_a_folder_of_all_classes() -> None:
    """What the list does not name there is another class's, and no business of this one."""
    shared = Folder("", files=("a.avi", "b.mp4", "c.avi", "extra.avi"), refused=(Refusal("other.avi", "a link"),))
    listing = lists.hold_against(LISTED, own=(), shared=[shared])
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [("a.avi", False), ("b.mp4", True)]
    assert listing.missing == ()
    assert listing.unused == ("c.avi",)
    assert listing.refused == ()


def test_the_first_folder_that_has_a_file_gives_it() -> None:
    folders = [Folder("new", files=("a.avi",)), Folder("old", files=("a.avi", "b.avi"))]
    listing = lists.hold_against(LISTED, own=(), shared=folders)
    assert [clip.name for clip in listing.clips] == ["new/a.avi", "old/b.avi"]


@pytest.mark.parametrize("is_own", [True, False])
def test_a_listed_file_that_is_refused_is_not_missing_as_well(is_own: bool) -> None:
    folder = Folder("run", folders=("a.avi",), refused=(Refusal("run/b.avi", "a link to nothing"),))
    listing = lists.hold_against(LISTED, own=[folder] if is_own else (), shared=() if is_own else [folder])
    assert [item.file for item in listing.refused] == ["run/a.avi", "run/b.avi"]
    assert listing.clips == ()
    assert listing.missing == ()


def test_a_refused_file_of_another_case_is_not_missing_as_well() -> None:
    folder = Folder("run", refused=(Refusal("run/B.AVI", "a link to nothing"),))
    listing = lists.hold_against(LISTED[1:2], own=[folder], any_case=True)
    assert ([item.file for item in listing.refused], listing.missing) == (["run/B.AVI"], ())
    assert lists.hold_against(LISTED[1:2], own=[folder]).missing == ("b.avi",)


@pytest.mark.parametrize("is_own", [True, False])
def test_a_refused_file_in_another_container_is_not_missing_as_well(is_own: bool) -> None:
    """As a file it would have stood for the listed one."""
    folder = Folder("run", refused=(Refusal("run/b.mp4", "a link to nothing"),))
    listing = lists.hold_against(LISTED[1:2], own=[folder] if is_own else (), shared=() if is_own else [folder])
    assert ([item.file for item in listing.refused], listing.missing) == (["run/b.mp4"], ())


def test_a_file_refused_here_and_found_there_is_a_clip() -> None:
    here = Folder("new", refused=(Refusal("new/b.avi", "a link to nothing"),))
    listing = lists.hold_against(LISTED[1:2], own=(), shared=[here, Folder("old", files=("b.avi",))])
    assert [clip.name for clip in listing.clips] == ["old/b.avi"]
    assert listing.missing == ()


def test_every_listed_file_ends_in_one_place() -> None:
    """Clips, missing, refused and unused together are the list, whatever is on disk."""
    names = [f"{letter}.avi" for letter in "abcdefgh"]
    listed = [Listed(name, name, (False, True, None)[index % 3]) for index, name in enumerate(names)]
    for mask in range(256):
        files = tuple(name for bit, name in enumerate(names) if mask >> bit & 1)
        listing = lists.hold_against(listed, own=[Folder("", files=files)])
        used = [clip.name for clip in listing.clips]
        assert sorted([*used, *listing.unused]) == sorted(files)
        assert sorted([*used, *listing.missing]) == sorted(item.file for item in listed if item.is_test is not None)
