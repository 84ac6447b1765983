import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["inspect"], ["plan"], ["evaluate"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 150


def test_an_unknown_dataset_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["run", "nothing"])
    assert result.exit_code == 1
    assert "unknown dataset 'nothing'" in result.output
    assert "Traceback" not in result.output
