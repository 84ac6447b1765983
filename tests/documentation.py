"""The commands of the documentation: its code blocks, and what in them can be known without running them.

A block is run unless a comment above it, which nobody sees on the page, says why not:

    <!-- not run: downloads 2 GB -->
    <!-- not run (lvdd ui): stays until Ctrl-C -->

the second of those lines alone that begin so. What is not run is checked: each command, option and choice must exist.
"""

import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[1]

PAGES = (
    *(REPOSITORY / name for name in ("README.md", "data/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)

_MARK = re.compile(r"<!-- not run(?: \((?P<lines>.+?)\))?: (?P<reason>.+?) -->")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")

_FOREIGN = frozenset({".", "cd", "cp", "eval", "export", "sha256sum", "source", "ssh", "sudo"})
"""Not ours: their options are not looked at."""

_OURS = frozenset({"dagster", "dask", "lvdd", "make", "pip", "python"})


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: The file.
        line: Its first line, from 1.
        language: As the fence says.
        code: What is in it.
        not_run: Why it is not run; empty where it is.
        lines: What the lines begin with that are not run; empty for all of them.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str = ""
    lines: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def runs(self) -> str:
        """The code that is run; lines that are not are empty."""
        if not self.not_run:
            return self.code
        kept = (self.lines and not line.startswith(self.lines) for line in self.code.splitlines())
        return "\n".join(line if keep else "" for line, keep in zip(self.code.splitlines(), kept, strict=True))

    @property
    def commands(self) -> list[list[str]]:
        """Each command of a shell's block, as words, without variables before it."""
        joined = self.code.replace("\\\n", " ")
        return [command for line in joined.splitlines() for command in _commands_in(line)]


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def blocks_of(page: Path) -> list[Block]:
    """The blocks of code of a page in their order, those without a language and indented ones too."""
    blocks = []
    mark: re.Match[str] | None = None
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            reason, lines = (mark["reason"], mark["lines"] or "") if mark else ("", "")
            blocks.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, reason, lines))
        mark = _MARK.fullmatch(token.content.strip()) if token.type == "html_block" else None
    return blocks


def spans_of(page: Path) -> Iterator[str]:
    """What stands as code within sentences and tables."""
    for token in _tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def _commands_in(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if set(word) <= set("&|;"):
            while words and _ASSIGNMENT.match(words[0]):
                del words[0]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def command_in(span: str) -> list[str]:
    """The words of a span that is a command of ours; empty for any other."""
    try:
        commands = list(_commands_in(span))
    except ValueError:  # a lone quote: no command
        return []
    return commands[0] if len(commands) == 1 and commands[0][0] in _OURS else []


def check(words: Sequence[str]) -> None:
    """Raises an AssertionError or a click error for a command, option, choice, file or extra that does not exist."""
    name, rest = words[0], [word for word in words[1:] if word != "…"]
    if name == "lvdd":
        from lvdd_assets import cli

        _check_click(cli.main, rest)
    elif name == "dagster":
        from dagster._cli import create_dagster_cli

        _check_click(create_dagster_cli(), rest)
    elif name == "dask":
        found = {entry.name: entry for entry in entry_points(group="dask_cli")}
        assert rest[0] in found, f"dask has {', '.join(found)}, not {rest[0]}"
        _check_click(found[rest[0]].load(), rest[1:])
    elif name == "make":
        _check_make(rest)
    elif name == "pip":
        _check_extras(rest)
    elif name == "python":
        _check_program(rest)
    else:
        assert name in _FOREIGN, f"what is {name}? A command of ours is checked, another one is named in {__name__}"


def _check_click(command: click.Command, words: Sequence[str]) -> None:
    words = list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        chosen = command.get_command(click.Context(command), name)
        assert chosen is not None, f"{command.name} has no command {name}"
        command = chosen
    context = click.Context(command)
    try:
        values, _, _ = command.make_parser(context).parse_args(words)
    except click.BadOptionUsage as error:
        if "requires an argument" not in error.message:  # `lvdd gc --older-than`, in a sentence about it
            raise
        values, _, _ = command.make_parser(context).parse_args([*words, "1"])
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and parameter.name in values:
            parameter.type_cast_value(context, values[parameter.name])


def _check_make(words: Sequence[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in words:
        variable, is_variable, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if is_variable else rf"^{word}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {variable}"


def _check_extras(words: Sequence[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"(?:lvdd-assets|\.)\[(.+?)\]", " ".join(words)):
        unknown = set(extras.split(",")) - set(project["optional-dependencies"])
        assert not unknown, f"there is no extra {', '.join(sorted(unknown))}"


def _check_program(words: Sequence[str]) -> None:
    program = REPOSITORY / words[0]
    assert program.is_file(), f"there is no {words[0]}"
    text = program.read_text()
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in text, f"{words[0]} has no {option}"
