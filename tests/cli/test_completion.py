"""Completion as a shell asks for it: click's protocol, on the installed program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeChain

LVDD = Path(sys.executable).with_name("lvdd")


def _complete(line: str, **environment: str) -> list[str]:
    """What bash is told for a line whose last word, maybe empty, is being typed."""
    words = line.split(" ")
    variables = {
        "_LVDD_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        **environment,
    }
    result = subprocess.run(
        [str(LVDD)], env={**os.environ, **variables}, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stderr == ""
    return [item.partition(",")[2] for item in result.stdout.split("\n") if item]


def test_commands_are_completed() -> None:
    assert _complete("lvdd in") == ["inspect"]
    assert set(_complete("lvdd ")) >= {"distill", "compare", "export", "gc"}


def test_datasets_are_completed(make_chain: MakeChain) -> None:
    environment = {"LVDD_DATASETS": str(make_chain().workspace.registry)}
    assert _complete("lvdd stale t", **environment) == ["tiny"]
    assert _complete("lvdd stale x", **environment) == []
    assert _complete("lvdd stale tiny ", **environment) == []  # it is there already
    assert _complete("lvdd run ", **environment) == ["tiny"]


def test_a_registry_with_a_mistake_completes_nothing_and_says_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "datasets.yaml"
    registry.write_text("datasets: [")
    assert _complete("lvdd plan ", LVDD_DATASETS=str(registry)) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lvdd export x --to w", ["webdataset"]),
        ("lvdd evaluate x --rival k", ["k-center", "k-means"]),
        ("lvdd fetch u", ["ucf101"]),
        ("lvdd compare --j", ["--json"]),
    ],
)
def test_choices_and_options_are_completed(line: str, expected: list[str]) -> None:
    assert _complete(line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    environment = {**os.environ, "_LVDD_COMPLETE": f"{shell}_source"}
    script = subprocess.run([str(LVDD)], env=environment, capture_output=True, text=True, check=True).stdout
    assert f"_LVDD_COMPLETE={shell}_complete" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
