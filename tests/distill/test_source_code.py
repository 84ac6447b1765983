import sys
from pathlib import Path

import pytest

from lvdd_assets.distill.source_code import syntax

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
    assert (syntax("first_source") == syntax("second_source")) is same
    assert "first_source" not in sys.modules  # it is read, not run


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(ValueError, match="no source for module 'no_such_module'"):
        syntax("no_such_module")
