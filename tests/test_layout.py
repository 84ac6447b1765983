"""The house: every module has its test, layers point downwards, the face is light, descriptions are there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

PACKAGE = REPOSITORY / "lvdd_assets"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_mirror_test(module: object) -> None:
    path = PACKAGE / str(module)
    mirror = REPOSITORY / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}"
    assert mirror.exists(), f"{mirror.relative_to(REPOSITORY)} is missing"


def test_there_are_modules() -> None:
    assert len(MODULES) > 25


def test_layering_contracts_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def _modules_after(statement: str, names: tuple[str, ...]) -> list[str]:
    """Which of the named modules are imported once a fresh interpreter has run the statement."""
    code = f"import sys; {statement}; print([name for name in {names!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(result.stdout.strip())


def test_the_package_face_starts_nothing_heavy() -> None:
    assert _modules_after("import lvdd_assets", ("torch", "dagster", "zarr", "diffusers", "pandas")) == []


def test_definitions_start_nothing_that_only_computing_needs() -> None:
    """Every command of Dagster and its UI loads them, and each of these takes seconds."""
    statement = "import os; os.environ.pop('LVDD_DATASETS', None); import lvdd_assets.definitions"
    assert _modules_after(statement, ("torch", "diffusers", "pandas", "distributed", "scipy", "matplotlib")) == []


def test_loading_a_release_starts_neither_dagster_nor_the_compiler() -> None:
    assert _modules_after("from lvdd_assets import load_release", ("dagster", "torch._inductor", "diffusers")) == []
