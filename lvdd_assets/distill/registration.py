"""Entries of the registry that are written by a command instead of by hand.

Such an entry is one line, so that nothing else in the file, comments included, is touched when it changes. Entries that
people wrote are never rewritten.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lvdd_assets.distill.catalog import CatalogError
from lvdd_assets.distill.places import replace_bytes
from lvdd_assets.distill.registry import load_catalog

_HEAD = "# The registry of datasets. What each key means: data/README.md of lvdd-assets.\ndatasets:\n"
_MARK = "  # kept by lvdd distill"


def register(registry: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Brings an entry into a registry file, which is made where there is none; whether the file was changed.

    Args:
        registry: the file.
        name: of the dataset.
        entry: its keys, of plain values.

    Raises:
        CatalogError: somebody wrote another entry of that name, or what was asked for is not understood. The file stays
            as it was.
    """
    before = registry.read_text(encoding="utf-8") if registry.exists() else _HEAD
    line = f"  {name}: {_flow(entry)}{_MARK}"
    present = ((yaml.safe_load(before) or {}).get("datasets") or {}).get(name)
    if present == dict(entry):
        return False
    own = re.compile(rf"^  {re.escape(name)}: \{{.*\}}{re.escape(_MARK)}$", re.MULTILINE)
    if own.search(before):
        after = own.sub(lambda _: line, before)
    elif present is not None:
        raise CatalogError(
            f"{registry} has an entry {name!r} already, with other {_differing(present, entry)}. Choose another name "
            f"by --name, or run that one: lvdd run {name}"
        )
    else:
        after = f"{before.rstrip()}\n{line}\n"
    trial = registry.with_name(f".{registry.name}.trial")
    try:
        replace_bytes(trial, after.encode())
        load_catalog(trial)
        trial.replace(registry)
    except CatalogError as error:
        raise CatalogError(str(error).replace(str(trial), str(registry))) from None
    finally:
        trial.unlink(missing_ok=True)
    return True


def _flow(entry: Mapping[str, Any]) -> str:
    """A mapping as one line of YAML; JSON is YAML."""
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()) + "}"


def _differing(present: object, entry: Mapping[str, Any]) -> str:
    before = present if isinstance(present, Mapping) else {}
    return ", ".join(sorted(key for key in before.keys() | entry.keys() if before.get(key) != entry.get(key)))
