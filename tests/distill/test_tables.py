"""A table keeps every digit in JSON and reads well as Markdown."""

import json

import pytest

from lvdd_assets.distill.tables import Table

TABLE = Table(
    "Title",
    ("set", "bytes", "accuracy, %", "note"),
    (("a|b", 1234567, 34.8123, None), ("c", 12, 100.0, "not run\nat all"), ("d", None, 0.123456, "–")),
    ("A note.",),
)


def test_markdown() -> None:
    lines = TABLE.to_markdown().splitlines()
    assert lines == [
        "### Title",
        "",
        "| set | bytes | accuracy, % | note |",
        "| --- | --: | --: | --- |",
        "| a\\|b | 1,234,567 | 34.8 | – |",
        "| c | 12 | 100 | not run at all |",
        "| d | – | 0.12 | – |",
        "",
        "A note.",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.00"), (9.949, "9.95"), (9.96, "10.0"), (99.94, "99.9"), (1234.5, "1,234"), (1e-5, "1e-05")],
)
def test_numbers_to_three_digits(value: float, shown: str) -> None:
    assert Table("", ("x",), ((value,),)).to_markdown().splitlines()[4] == f"| {shown} |"


def test_json_keeps_every_digit() -> None:
    read = json.loads(TABLE.to_json())
    assert read["rows"][0] == ["a|b", 1234567, 34.8123, None]
    assert (read["title"], read["columns"][2], read["notes"]) == ("Title", "accuracy, %", ["A note."])


def test_columns_and_rows_belong_together() -> None:
    assert TABLE.column("bytes") == (1234567, 12, None)
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("t", ("a", "b"), ((1,),))
