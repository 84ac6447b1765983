"""The check stops a run whose quantised decoder lost more than was allowed."""

import dagster as dg

from tests.conftest import Chain, MakeChain


def _check(chain: Chain, result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    return next(e for e in result.get_asset_check_evaluations() if e.check_name == "decoder_keeps_its_quality")


def test_it_passes_with_the_bytes_and_the_loss(finished: MakeChain) -> None:
    chain = finished()
    check = _check(chain, chain.materialize("quantized_vae"))
    assert check.passed
    assert "tiny: 256 kB to" in check.description
    assert "0.50 allowed" in check.description
    assert "held-out clips" in check.metadata["losses"].value


def test_it_fails_and_stops_what_comes_after(finished: MakeChain) -> None:
    chain = finished()
    release = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    before = release.read_bytes()
    result = chain.materialize("quantized_vae", "release", config={"quantized_vae": {"bits": 2, "max_loss_db": 0.1}})
    check = _check(chain, result)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "0.10 allowed; raise bits or max_loss_db" in check.description
    assert not result.success
    assert release.read_bytes() == before
