"""The checks measure the file on disk, show the ledger, and block."""

import dagster as dg

from lvdd_assets import definitions
from lvdd_assets.distill.stores import ZarrStore
from tests.conftest import QUICK, Chain, MakeChain, failure


def _evaluation(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [item for item in result.get_asset_check_evaluations() if item.check_name == name]
    return found


def _check_alone(chain: Chain) -> dg.ExecuteInProcessResult:
    """Judges the file as it lies there, without making it again first."""
    return dg.materialize(
        [*definitions.defs.assets, *definitions.defs.asset_checks],
        selection=dg.AssetSelection.checks_for_assets("release"),
        resources={"pipeline": chain.pipeline},
        tags={"dagster/partition": "tiny"},
        raise_on_error=False,
    )


def _size(chain: Chain) -> int:
    return (chain.workspace.data_root / "release" / "tiny.zarr.zip").stat().st_size


def test_a_release_within_its_budget_passes_with_its_ledger(finished: MakeChain) -> None:
    chain = finished()
    check = _evaluation(chain.materialize("release"), "release_fits_its_budget")
    assert check.passed
    assert check.metadata["measured_bytes"].value == _size(chain)
    assert check.metadata["allowed_bytes"].value == 90_000
    ledger = str(check.metadata["ledger"].value)
    lines = [line for line in ledger.splitlines() if line.startswith("| ") and line.count("|") == 4]
    sizes = [int(line.split("|")[3]) for line in lines if line.split("|")[3].strip().isdigit()]
    assert sum(sizes) == _size(chain)


def test_over_budget_blocks_the_report(finished: MakeChain) -> None:
    chain = finished(recipe="paper", budget="{bytes: 20kB}")
    result = chain.materialize("quantized_vae", "release", "eval_report", config=QUICK)
    check = _evaluation(result, "release_fits_its_budget")
    assert not result.success
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert f"{_size(chain)} B on disk are {_size(chain) - 20_000} B over the allowance of 20000 B" in check.description
    assert check.description.endswith("lower rank_ratio or clips_per_class, or raise the budget")
    steps = {event.step_key for event in result.all_events if event.is_step_start}
    assert "release" in steps
    assert "eval_report" not in steps


def test_a_release_of_fewer_classes_fails(finished: MakeChain) -> None:
    from lvdd_assets.distill.quantization import QuantizedWeights
    from lvdd_assets.distill.release import ReleaseParts, load_release, pack

    chain = finished()
    path = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    release = load_release(path)
    template = {name: tuple(value.shape) for name, value in release.build_decoder().state_dict().items()}
    weights = QuantizedWeights.from_bytes(release.decoder_data, template)
    some = {"grow": release.coded[0]}
    path.write_bytes(pack(ReleaseParts("tiny", release.shape, some, release.decoder_spec, weights)))
    # Asked for release, a run would put the committed one in its place: judge it as it lies there.
    check = _evaluation(_check_alone(chain), "release_fits_its_budget")
    assert not check.passed
    assert "1 of 2 classes are missing: move_left" in check.description
    chain.materialize("release")
    assert _evaluation(_check_alone(chain), "release_fits_its_budget").passed


def test_another_release_in_the_place_of_the_one_that_was_made_fails(finished: MakeChain) -> None:
    """Though it is a release of all classes and within the budget."""
    chain = finished()
    path = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    other = path.read_bytes()
    assert chain.materialize("dpp_subsets", config={"dpp_subsets": {"seed": 5, "clips_per_class": 2}}).success
    assert chain.materialize("release").success
    assert path.read_bytes() != other
    path.unlink()
    path.write_bytes(other)
    check = _evaluation(_check_alone(chain), "release_fits_its_budget")
    assert not check.passed
    assert "it is not the file that was made here" in check.description


def test_a_damaged_release_fails_with_the_reason(finished: MakeChain) -> None:
    chain = finished()
    path = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:-30]):
        path.write_bytes(damaged)
        check = _evaluation(_check_alone(chain), "release_fits_its_budget")
        assert not check.passed
        assert "is no release" in check.description


def test_no_release_fails(make_chain: MakeChain) -> None:
    chain = make_chain()
    result = _check_alone(chain)
    assert (
        "release has no file tiny.zarr.zip. Materialize release again"
        in _evaluation(result, "release_fits_its_budget").description
    )


def test_classes_over_their_share_are_a_warning_not_a_failure(finished: MakeChain) -> None:
    chain = finished()
    check = _evaluation(chain.materialize("hosvd_cores"), "classes_fit_their_share")
    assert check.passed
    chain = finished(budget="{bytes: 150}")
    result = chain.materialize("hosvd_cores")
    assert result.success, failure(result)
    check = _evaluation(result, "classes_fit_their_share")
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["over_their_share"].value == "tiny/grow, tiny/move_left"
    assert "equal share 75 B" in str(check.metadata["classes"].value)
    assert ZarrStore(chain.workspace.data_root, "hosvd_cores").commit_of("tiny/grow") is not None
