"""What an algorithm's source says, for fingerprints: comments, docstrings and layout do not count."""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Collection, Iterable
from pathlib import Path

_PACKAGE = "lvdd_assets"
_ROOT = Path(__file__).parents[2]


def syntax(module: str) -> str:
    """A module's syntax tree as text, without docstrings; the module is not imported."""
    return _read(module)[0]


def reached_from(module: str, *, without: Collection[str] = ()) -> tuple[str, ...]:
    """A module and all of this package's that it imports, at their top or inside functions, directly or through others.

    Args:
        module: its full name.
        without: modules and packages that are left out, with what only they import.

    Returns:
        Full names, sorted.

    Raises:
        ValueError: a module has no source, or imports relatively, which is not followed.
    """
    reached, waiting = {module}, [module]
    while waiting:
        for found in _read(waiting.pop())[1]:
            left_out = any(found == name or found.startswith(f"{name}.") for name in without)
            if not left_out and found not in reached:
                reached.add(found)
                waiting.append(found)
    return tuple(sorted(reached))


def code_version_of(module: str, templates: Iterable[Path] = (), *, without: Collection[str] = ()) -> str:
    """Hash of an algorithm as this process has it: of a module with all that it imports, and of further files.

    Args:
        module: its full name.
        templates: the files.
        without: as `reached_from` takes it.
    """
    found = hashlib.sha256()
    for name in reached_from(module, without=without):
        found.update(f"{name} {syntax(name)}\n".encode())
    for template in templates:
        found.update(template.read_bytes())
    return found.hexdigest()[:12]


@functools.cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """A module's syntax, and this package's modules that it imports."""
    file = _file(module)
    if file is None:
        raise ValueError(f"no source for module {module!r}")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"{module} imports relatively in line {node.lineno}: write out the package's name")
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    ours = {name for name in imported if name.startswith(f"{_PACKAGE}.") and _file(name) is not None}
    return ast.dump(tree), frozenset(ours)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]


def _file(module: str) -> Path | None:
    """Where a module's source lies; None where the name is none of a module.

    Modules of this package are looked for without importing what they lie in.
    """
    if module.split(".")[0] == _PACKAGE:
        path = _ROOT.joinpath(*module.split("."))
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
