"""`extras`: one sentence with the extra where a library is missing; the extras named are those of pyproject.toml."""

import tomllib
from pathlib import Path

import pytest

from lvdd_assets.distill.extras import EXTRAS, MissingExtraError, needing

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_a_missing_library_is_one_sentence_with_the_extra() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"^a cake needs flour_and_eggs.*pip install 'lvdd-assets\[pipeline\]'$"),
        needing("pipeline", "a cake"),
    ):
        import flour_and_eggs  # type: ignore[import-not-found]  # noqa: F401


def test_other_errors_pass() -> None:
    with pytest.raises(ImportError, match="cannot import name 'cake'") as caught, needing("pipeline", "a cake"):
        from json import cake  # type: ignore[attr-defined]  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_the_extras_exist() -> None:
    assert set(EXTRAS) <= set(PROJECT["optional-dependencies"])
