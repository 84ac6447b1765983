"""What the documentation shows can be done: its commands run as they stand, its site builds with every link alive and
asks no other host for anything.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from lvdd_assets.distill.registry import load_catalog
from tests.documentation import PAGES, REPOSITORY, Block, blocks_of, check, command_in, spans_of
from tests.documented_commands import Shell

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL_LANGUAGES = ("sh", "console", "bash")
RUN_LANGUAGES = (*SHELL_LANGUAGES, "python")
WITH_COMMANDS = [
    page
    for page in PAGES
    if any(block.language in RUN_LANGUAGES and block.runs.strip() for block in BLOCKS if block.page == page)
]


REGISTRY = """
default: demo
datasets:
  demo: &small
    root: demo
    layout: folders
    split: folders
    frames: 8
    stride: 3
    size: 48
    budget: {bytes: 90kB}
    clips_per_class: 3
  my_videos:
    <<: *small
    root: ../home/videos
    split: {test_fraction: 0.25}
"""

SELECTION = "ops: {dpp_subsets: {config: {method: facility-location, features: pooled, feature_dim: 256}}}\n"

SHORTER = {r"--epochs \d+": "--epochs 1", r"--seeds \d+": "--seeds 1", r"--at \S+( --at \S+)*": "--at 60kB"}
"""What is trained is a few clips; how well is tested elsewhere."""

REPEATED = ("lvdd", "python")
"""A command of these that an earlier page has shown in the same words is not run again."""


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path has at most 108 bytes
        shell = Shell(Path(folder))
        yield shell
        shell.close()


@pytest.fixture(scope="module")
def project(shell: Shell, rendered_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as the documentation has it, after `make demo` of two classes: videos at home, the demo distilled."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "lvdd_assets", "env.sh", "examples", "benchmarks", "dagster.yaml", "workspace.yaml"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f"PATH={shell.bin}:$PATH\n")
    shutil.copytree(rendered_videos, folder / "data" / "demo")
    shutil.copytree(rendered_videos / "train", folder / "home" / "videos")
    shutil.copytree(rendered_videos / "test" / "grow", folder / "new_class")
    for file in (rendered_videos / "train" / "move_left").iterdir():
        shutil.copy(file, folder / "new_class")
    (folder / "data" / "datasets.yaml").write_text(REGISTRY)
    (folder / "selection.yaml").write_text(SELECTION)
    made = shell.run("lvdd run demo", folder=folder)
    assert made.returncode == 0, made.stdout
    return folder


def _shown(code: str, seen: set[str]) -> str:
    for long, short in SHORTER.items():
        code = re.sub(long, short, code)
    if "\\\n" in code:
        return code
    lines = [line.partition("  #")[0].rstrip() for line in code.splitlines()]
    kept = [line for line in lines if not (line.startswith(REPEATED) and line in seen)]
    seen.update(kept)
    return "\n".join(kept)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Commands that were run."""
    return set()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_shows_runs(page: Path, shell: Shell, project: Path, seen: set[str]) -> None:
    """Blocks for the shell one by one, then those in Python as one program: later ones go on where earlier end."""
    programs = []
    for block in blocks_of(page):
        if block.language in SHELL_LANGUAGES and block.runs.strip():
            ran = shell.run(_shown(block.runs, seen), folder=project)
            assert ran.returncode == 0, f"{block} ended with {ran.returncode}\n{block.runs}\n{ran.stdout[-3000:]}"
        elif block.language == "python":
            programs.append(block.runs)
    if any(program.strip() for program in programs):
        ran = shell.run("\n".join(programs), folder=project, program=[str(shell.bin / "python")])
        assert ran.returncode == 0, f"{page.name}, Python\n{ran.stdout[-3000:]}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.not_run], ids=str)
def test_what_is_not_run_exists(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.code)
        return
    assert block.language in SHELL_LANGUAGES, f"{block}: only commands are run, so why say that it is not?"
    assert any(line.startswith(block.lines) for line in block.code.splitlines()), f"{block} has no such line"
    for words in block.commands:
        try:
            check(words)
        except Exception as error:
            raise AssertionError(f"{block}: {' '.join(words)}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_in_sentences_exist(page: Path) -> None:
    for span in spans_of(page):
        if words := command_in(span):
            try:
                check(words)
            except Exception as error:
                raise AssertionError(f"{page.name}: `{span}`: {error}") from error


def test_no_block_hides_commands_by_its_language() -> None:
    hidden = [
        f"{block}: {line}"
        for block in BLOCKS
        if block.language not in RUN_LANGUAGES
        for line in block.code.splitlines()
        if command_in(line)
    ]
    assert not hidden, "\n".join(hidden)


def test_few_blocks_are_not_run() -> None:
    shown = [block for block in BLOCKS if block.language in RUN_LANGUAGES]
    whole = [block for block in shown if block.not_run and not block.lines]
    assert len(whole) < len(shown) / 2, [f"{block}: {block.not_run}" for block in whole]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_settings_are_understood(block: Block, shell: Shell, project: Path) -> None:
    """Entries of the registry, alone or in a whole one, and run configs; other files are YAML at least."""
    content = next(iter(yaml.safe_load_all(block.code)))
    if "ops" in content:
        (project / "shown.yaml").write_text(block.code)
        ran = shell.run("lvdd stale demo --config shown.yaml", folder=project)
        assert ran.returncode == 0, ran.stdout
        return
    if "datasets" not in content and all(isinstance(entry, dict) and "root" in entry for entry in content.values()):
        content = {"datasets": content}
    if "datasets" in content:
        registry = project / "data" / "shown.yaml"
        registry.write_text(yaml.safe_dump(content))
        assert load_catalog(registry).dataset(next(iter(content["datasets"])))


def test_tests_that_pages_name_exist() -> None:
    named = {span for page in PAGES for span in spans_of(page) if "::" in span}
    assert named
    for span in named:
        file, _, name = span.partition("::")
        sources = [path.read_text() for path in (REPOSITORY / "tests").rglob(Path(file).name)]
        assert any(f"def {name}(" in source for source in sources), f"there is no {span}"


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it: a broken link, or a page that the navigation lacks, is an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class _Loaded(HTMLParser):
    """What a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") not in ("prev", "next", "canonical"):
            self.addresses.append(given.get("href", ""))
        if tag in ("script", "img", "iframe", "source", "video", "embed"):
            self.addresses += [given.get("src", ""), *re.split(r"[\s,]+", given.get("srcset", ""))]


def test_the_site_asks_no_other_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list((REPOSITORY / "docs").rglob("*.md")))
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert any(address.endswith(".js") for address in loaded.addresses)
        elsewhere = [address for address in loaded.addresses if re.match(r"(https?:)?//", address)]
        assert not elsewhere, f"{page.name} loads {elsewhere}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_reference_has_what_the_package_offers(site: Path) -> None:
    text = (site / "reference" / "release.html").read_text(encoding="utf-8")
    for name in ("load_release", "Release", "Release.dataset", "Release.ledger"):
        assert f'id="lvdd_assets.distill.release.{name}"' in text
    assert "uint8 [T, 3, H, W]" in text


def test_links_out_of_the_folder_lead_to_pages(site: Path) -> None:
    assert "def augment(clip" in re.sub(r"<[^>]+>", "", (site / "examples" / "train.py.html").read_text())
    assert 'href="examples/train.py.html"' in (site / "library.html").read_text()
    assert (site / "data" / "index.html").exists()
