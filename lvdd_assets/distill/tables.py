"""A table as data: title, columns, rows, notes; printed as Markdown, and as JSON with every digit."""

import json
from dataclasses import asdict, dataclass

Cell = str | int | float | None

PAPER_TABLES = (
    *("methods", "cross-architecture", "rank-ratio", "svd", "storage", "sampling", "contrast", "rate-accuracy"),
    *("memory", "runtime"),
)
"""Names of the tables that `paper_tables` makes, in the paper's order."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: one line.
        columns: names, with the unit where there is one.
        rows: as many cells each; None where there is nothing to say.
        notes: sentences below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: a row of {len(row)} cells for {len(self.columns)} columns: {row}")

    def column(self, name: str) -> tuple[Cell, ...]:
        """The cells of a column, from the first row on."""
        place = self.columns.index(name)
        return tuple(row[place] for row in self.rows)

    def to_markdown(self) -> str:
        """GitHub's Markdown; numbers to three digits, at the right."""
        numeric = [any(isinstance(cell, (int, float)) for cell in self.column(name)) for name in self.columns]
        lines = [f"### {self.title}", "", _line(self.columns), _line(["--:" if right else "---" for right in numeric])]
        lines += [_line([_text(cell) for cell in row]) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """One object with title, columns, rows, notes."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


def _line(cells: "list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(cells) + " |"


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell.replace("|", "\\|").replace("\n", " ")
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell == 0 or 0.01 <= abs(cell) < 100:
        digits = 1 if abs(cell) >= 9.95 else 2
        return f"{cell:.{digits}f}"
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.2g}"
