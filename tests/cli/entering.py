"""Commands that run in the test's own process."""

import pytest

from tests.conftest import Chain


def enter(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a chain's workspace the one that commands in this process find."""
    monkeypatch.setenv("LVDD_DATASETS", str(chain.workspace.registry))
    monkeypatch.setenv("LVDD_DATA_ROOT", str(chain.workspace.data_root))
    monkeypatch.setenv("LVDD_WORKERS", "1")
