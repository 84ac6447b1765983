import json

import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from tests.cli.entering import enter
from tests.conftest import MakeChain


@pytest.mark.slow
def test_lvdd_plan_says_what_a_budget_buys(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = finished()
    enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["plan", "tiny", "--budget", "48kB"])
    assert result.exit_code == 0, result.output
    assert "tiny: 48.0 kB allowed, 2 classes" in result.output
    for recipe in ("tight", "paper", "codec"):
        assert f"  {recipe}  " in result.output
    assert "* picked: " in result.output
    assert "To use it, give tiny in the registry:  recipe: " in result.output
    parsed = json.loads(CliRunner().invoke(main, ["plan", "tiny", "--budget", "4kB", "--json"]).output)
    assert parsed["picked"] == "codec"
    assert {plan["recipe"] for plan in parsed["plans"]} == {"tight", "paper", "codec"}
    for budget, message in (("4 apples", "4 apples"), ("100", "too small")):
        refused = CliRunner().invoke(main, ["plan", "tiny", "--budget", budget])
        assert refused.exit_code == 1
        assert message in refused.output
