"""Which folder commands work in: the project's, one that `lvdd distill` has made, or what the environment names."""

import os
from pathlib import Path

MADE = Path("lvdd")
"""Folder that is made where there is no project: registry, data root and Dagster's storage lie in it."""

_REGISTRY = Path("data/datasets.yaml")
_DAGSTER_YAML = "telemetry:\n  enabled: false\nnux:\n  enabled: false\npython_logs:\n  python_log_level: INFO\n"


def enter_project(*, make: bool = False) -> Path:
    """Sets the environment for the project of the current folder where it does not say another; its registry.

    Args:
        make: whether one is made where there is none.
    """
    if "LVDD_DATASETS" in os.environ or _REGISTRY.exists():
        return Path(os.environ.get("LVDD_DATASETS") or _REGISTRY)
    registry = MADE / "datasets.yaml"
    if make:
        MADE.mkdir(exist_ok=True)
        settings = MADE / "dagster.yaml"
        if not settings.exists():
            settings.write_text(_DAGSTER_YAML)
    elif not registry.exists():
        return _REGISTRY
    for name, place in (("LVDD_DATASETS", registry), ("LVDD_DATA_ROOT", MADE / "data"), ("DAGSTER_HOME", MADE)):
        os.environ.setdefault(name, str(place.absolute()))
    return registry
