"""The graph as promised: keys, dependencies, partitions, descriptions, checks."""

import dagster as dg
import pytest

from lvdd_assets import automation, definitions
from lvdd_assets.definitions import defs

CLASS, DATASET = ["tiny/grow", "tiny/move_left"], ["tiny"]
GRAPH = {
    "raw_clips": (set(), CLASS),
    "latents": ({"raw_clips"}, CLASS),
    "dpp_subsets": ({"latents"}, CLASS),
    "hosvd_cores": ({"latents", "dpp_subsets"}, CLASS),
    "quantized_vae": ({"raw_clips", "dpp_subsets", "hosvd_cores"}, DATASET),
    "release": ({"hosvd_cores", "quantized_vae"}, DATASET),
    "eval_report": ({"raw_clips", "release"}, DATASET),
}


def _specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for asset in defs.assets or [] for spec in asset.specs}


def test_the_graph() -> None:
    found = {
        name: ({dep.asset_key.to_user_string() for dep in spec.deps}, list(spec.partitions_def.get_partition_keys()))
        for name, spec in _specs().items()
    }
    assert found == GRAPH


def test_steps_and_assets_tell_the_same_story() -> None:
    """What the runner reads and refreshes is what the lineage shows, which leaves out arrows that others imply."""
    pipeline = definitions.build_pipeline(definitions.workspace_from_environment())
    above: dict[str, set[str]] = {}
    for name, spec in _specs().items():
        step, arrows = pipeline.step(name), {dep.asset_key.to_user_string() for dep in spec.deps}
        above[name] = arrows.union(*(above[one] for one in arrows))
        assert arrows <= set(step.upstream) <= above[name]
        assert step.code_version == spec.code_version
        assert (step.by == "class") == (list(spec.partitions_def.get_partition_keys()) == CLASS)


@pytest.mark.parametrize("name", GRAPH)
def test_every_asset_says_what_it_is(name: str) -> None:
    spec = _specs()[name]
    assert spec.group_name == "distill"
    assert spec.kinds
    assert spec.owners == []
    assert len(spec.description or "") > 80


def test_config_fields_are_described() -> None:
    described = {
        asset.key.to_user_string(): [
            name for name, field in asset.op.config_schema.config_type.fields.items() if field.description
        ]
        for asset in defs.assets or []
    }
    pipeline = definitions.build_pipeline(definitions.workspace_from_environment())
    assert described == {step.name: ["force", *step.defaults] for step in pipeline.steps}
    assert sum(map(len, described.values())) >= 15


def test_the_budget_check_blocks() -> None:
    checks = {check.name: check for some in defs.asset_checks or [] for check in some.check_specs}
    assert checks["release_fits_its_budget"].blocking
    assert checks["videos_are_usable"].blocking
    assert not checks["classes_fit_their_share"].blocking


def test_ranges_are_one_run() -> None:
    for asset in defs.assets or []:
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_nothing_starts_a_run_unasked() -> None:
    """All is off, but for the sensor that goes on where the schedule, once it is on, has begun."""
    repository = defs.get_repository_def()
    sensors = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    assert sensors == {
        "default_automation_condition_sensor": "STOPPED",
        "new_clips": "STOPPED",
        "release_after_classes": "RUNNING",
    }
    assert {one.name: one.default_status.value for one in repository.schedule_defs} == {"nightly": "STOPPED"}


def test_every_asset_has_the_condition() -> None:
    for asset in defs.assets or []:
        assert set(asset.automation_conditions_by_key.values()) == {automation.WHEN_STALE}


def test_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(defs)


def test_budgets_are_seen_where_they_are_spent() -> None:
    specs = _specs()
    for name, spec in specs.items():
        assert ("budget/tiny" in spec.tags) is (name in ("hosvd_cores", "release"))
    assert specs["release"].tags["budget/tiny"] == "IPC1"
    assert "| tiny | IPC 1 |" in specs["release"].metadata["budgets"].value
