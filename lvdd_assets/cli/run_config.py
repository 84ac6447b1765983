"""The option --config of `lvdd run` and `lvdd stale`: a run config of Dagster, read into config by step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

Config = Mapping[str, Mapping[str, Any]]


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run config (YAML or JSON), as `dagster asset materialize --config` takes it; by default a run has defaults.",
)
"""Adds --config to a command, which gets `config_file`."""


def read_config(file: Path | None) -> tuple[Config, frozenset[str]]:
    """Config by step, and the steps whose `force` is set, which says what to do, not what to make; both empty without a
    file.

    Raises:
        ValueError: the file is no run config.
    """
    if file is None:
        return {}, frozenset()
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        config = {name: dict(values.get("config", {})) for name, values in content.get("ops", {}).items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no run config: expected `ops: {{STEP: {{config: {{…}}}}}}` ({error})") from error
    return config, frozenset([name for name, values in config.items() if values.pop("force", False)])
