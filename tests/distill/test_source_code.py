import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvdd_assets.distill import source_code
from lvdd_assets.distill.source_code import reached_from, syntax

SOURCE = '"""What it is."""\n\ndef double(x: int) -> int:\n    """Twice."""\n    return 2 * x  # why\n'


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (SOURCE.replace("# why", "# because"), True),
        (SOURCE.replace("Twice.", "Two times."), True),
        (SOURCE.replace("\n\n", "\n\n\n"), True),
        (SOURCE.replace("2 * x", "3 * x"), False),
        (SOURCE.replace("x: int", "x: float"), False),
        (SOURCE + "LIMIT = 3\n", False),
    ],
)
def test_what_is_computed_counts_and_how_it_is_written_does_not(
    changed: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("first_source", SOURCE), ("second_source", changed)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    source_code._read.cache_clear()
    assert (syntax("first_source") == syntax("second_source")) is same
    assert "first_source" not in sys.modules  # it is read, not run


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(ValueError, match="no source for module 'no_such_module'"):
        syntax("no_such_module")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the place of this one, to which a test adds modules."""
    folder = tmp_path / "lvdd_assets"
    (folder / "deep").mkdir(parents=True)
    for file in (folder / "__init__.py", folder / "deep/__init__.py"):
        file.touch()
    monkeypatch.setattr(source_code, "_ROOT", tmp_path)
    source_code._read.cache_clear()
    yield folder
    source_code._read.cache_clear()


def test_imports_are_followed_of_every_kind_and_in_functions(package: Path) -> None:
    (package / "a.py").write_text(
        "import numpy\n"
        "from lvdd_assets.b import LIMIT\n"
        "from lvdd_assets import c\n"
        "def late():\n    import lvdd_assets.deep.d as d\n"
    )
    (package / "b.py").write_text("from lvdd_assets import a\nLIMIT = 1\n")  # in a circle
    (package / "c.py").write_text("from lvdd_assets.deep import e\n")
    (package / "deep/d.py").write_text("")
    (package / "deep/e.py").write_text("")
    (package / "unused.py").write_text("")
    assert reached_from("lvdd_assets.a") == tuple(
        f"lvdd_assets.{name}" for name in ("a", "b", "c", "deep", "deep.d", "deep.e")
    )


def test_what_is_left_out_takes_with_it_what_only_it_imports(package: Path) -> None:
    (package / "a.py").write_text("from lvdd_assets import b, c\n")
    (package / "b.py").write_text("from lvdd_assets.deep import d\n")
    (package / "c.py").write_text("")
    (package / "deep/d.py").write_text("")
    assert reached_from("lvdd_assets.a", without={"lvdd_assets.b"}) == ("lvdd_assets.a", "lvdd_assets.c")
    assert reached_from("lvdd_assets.a", without={"lvdd_assets.deep"}) == tuple(f"lvdd_assets.{name}" for name in "abc")


def test_relative_imports_are_refused_because_they_are_not_followed(package: Path) -> None:
    (package / "a.py").write_text("from . import b\n")
    with pytest.raises(ValueError, match=r"lvdd_assets\.a imports relatively in line 1"):
        reached_from("lvdd_assets.a")
