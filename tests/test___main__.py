"""`python -m lvdd_assets` is `lvdd`; what it says without its libraries is tried in `test_base_install`."""

import subprocess
import sys
import tomllib
from pathlib import Path


def test_it_is_the_command_line() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lvdd_assets", "--version"], capture_output=True, text=True, check=True
    )
    assert "version" in result.stdout
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lvdd": "lvdd_assets.__main__:main"}
