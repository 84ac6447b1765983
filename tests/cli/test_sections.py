"""`lvdd --help` and what each command's own help promises."""

import re

import click
import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from lvdd_assets.cli.sections import Entry, SectionedGroup

COMMANDS = list(main.list_commands(click.Context(main)))


def test_commands_are_listed_by_what_a_person_wants() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    titles = re.findall(r"^([A-Z][a-z ]+):$", result.output, flags=re.MULTILINE)
    assert titles == ["Options", "Make a file", "Look at it", "Use it elsewhere", "Upkeep"]
    listed = re.findall(r"^  ([a-z][a-z-]+)  +[A-Z]", result.output, flags=re.MULTILINE)
    assert listed == COMMANDS
    assert all(len(line) <= 80 for line in result.output.splitlines())
    assert "130 interrupted" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_examples(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"^    lvdd {name}( |$)", result.output, flags=re.MULTILINE), result.output
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} {param.opts} says nothing"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example's options exist and take such values; nothing is run."""
    text = CliRunner().invoke(main, [name, "--help"]).output
    command = main.get_command(click.Context(main), name)
    assert command is not None
    examples = re.findall(rf"^    lvdd {name}(.*)$", text, flags=re.MULTILINE)
    for example in examples:
        words = re.split(r" [|&]", example)[0].split("   ")[0].replace("~", "/tmp").split()
        for param in command.params:
            if isinstance(param.type, click.Path):  # the files of an example are not here
                monkeypatch.setattr(param.type, "exists", False)
        command.make_context(name, words)


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["inspekt"])
    assert result.exit_code == 2
    assert "No such command 'inspekt'" in result.output


def test_a_mistake_of_ours_is_no_sentence_about_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    group = SectionedGroup(sections={"A": {"inspect": Entry("releases", "x")}}, name="lvdd")

    def fail(*_arguments: object, **_options: object) -> None:
        raise ModuleNotFoundError("No module named 'x'", name="x")

    command = group.get_command(click.Context(group), "inspect")
    assert command is not None
    monkeypatch.setattr(command, "callback", fail)
    result = CliRunner().invoke(group, ["inspect", __file__])
    assert isinstance(result.exception, ModuleNotFoundError)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)  # the base install
    result = CliRunner().invoke(group, ["inspect", __file__])
    assert result.exit_code == 1
    assert result.output == (
        "Error: lvdd inspect needs x, which is not installed: pip install 'lvdd-assets[pipeline]'\n"
    )
