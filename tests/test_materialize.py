"""What Dagster is told: every partition with its figures, refreshed upstream included, failures in one sentence."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from lvdd_assets import definitions
from lvdd_assets.materialize import KEEP_SETTINGS, markdown_table
from lvdd_assets.partitions import BY_CLASS
from tests.conftest import MakeChain, failure, metadata


def test_each_partition_gets_its_own_metadata(finished: MakeChain) -> None:
    result = finished().materialize("latents")
    one, other = (metadata(result, "latents", key) for key in ("tiny/grow", "tiny/move_left"))
    assert one["cached"] is other["cached"] is True
    assert one["fingerprint"] != other["fingerprint"]
    assert one["psnr_db"] != other["psnr_db"]
    assert one["config"] == {"posterior": "mode", "seed": 0, "precision": "auto"}
    assert one["preview"].startswith("![preview](data:image/png;base64,")


def test_a_page_begins_with_what_became_of_it_and_what_one_looks_at(finished: MakeChain) -> None:
    chain = finished()
    shown = metadata(chain.materialize("hosvd_cores"), "hosvd_cores", "tiny/grow")
    assert list(shown)[:3] == ["cached", "preview", "spectrum"]
    assert shown["preview"].endswith(
        ")\n\nEach row is a clip as it was, and under it as it comes back from a middle rate."
    )
    assert list(shown)[-4:] == ["seconds", "config", "code_version", "fingerprint"]
    commit = chain.pipeline.step("hosvd_cores").store(chain.workspace.data_root).commit_of("tiny/grow")
    assert commit is not None
    assert len(str(commit.metrics["psnr_db"])) > 8
    assert shown["psnr_db"] == float(f"{commit.metrics['psnr_db']:.6g}")


def test_refreshed_upstream_shows_in_the_lineage(finished: MakeChain) -> None:
    chain = finished()
    (chain.videos / "train/grow/grow_000.mp4").unlink()
    result = chain.materialize("latents")
    assert metadata(result, "raw_clips", "tiny/grow")["num_train"] == 4
    assert metadata(result, "raw_clips", "tiny/grow")["cached"] is False
    with pytest.raises(AssertionError, match="no materialization"):
        metadata(result, "raw_clips", "tiny/move_left")  # was fresh: nothing happened to it


def test_a_failure_is_the_steps_own_message(make_chain: MakeChain) -> None:
    result = make_chain().materialize("release")
    assert failure(result).startswith("release: nothing stored upstream: raw_clips for tiny/grow")
    assert "--select '*hosvd_cores' --partition tiny" in failure(result)
    assert "--select quantized_vae --partition tiny" in failure(result)


def test_force_computes_what_is_fresh_and_changes_nothing(finished: MakeChain) -> None:
    """Not even the fingerprint or the stored config: it is no setting, and nothing below becomes stale."""
    chain = finished()
    before = metadata(chain.materialize("dpp_subsets", partition="tiny/grow"), "dpp_subsets", "tiny/grow")
    result = chain.materialize("dpp_subsets", partition="tiny/grow", config={"dpp_subsets": {"force": True}})
    assert chain.computed(result) == {"dpp_subsets tiny/grow"}
    after = metadata(result, "dpp_subsets", "tiny/grow")
    assert after["reason"] == "forced"
    assert "force" not in after["config"]
    assert after["fingerprint"] == before["fingerprint"]
    store = chain.pipeline.step("dpp_subsets").store(chain.workspace.data_root)
    assert "force" not in store.commit_of("tiny/grow").settings["config"]
    assert chain.computed(chain.materialize("hosvd_cores")) == set()


def test_a_run_that_nobody_configured_keeps_the_settings(finished: MakeChain) -> None:
    """Started by the sensor, the schedule or Dagster's automation; a run by hand has its config, or the defaults."""
    chain = finished()
    both = {"dpp_subsets tiny/grow", "dpp_subsets tiny/move_left"}
    assert chain.computed(chain.materialize("dpp_subsets", config={"dpp_subsets": {"quality": 0.5}})) == both
    for tags in (KEEP_SETTINGS, {AUTOMATION_CONDITION_TAG: "true"}):
        result = dg.materialize(
            definitions.defs.assets or [],
            selection=["dpp_subsets"],
            resources={"pipeline": chain.pipeline},
            tags={**BY_CLASS.get_tags_for_partition_key("tiny"), **tags},
        )
        assert chain.computed(result) == set()
        assert metadata(result, "dpp_subsets", "tiny/grow")["config"]["quality"] == 0.5
    assert chain.computed(chain.materialize("dpp_subsets")) == both


def test_dagster_gets_the_fingerprint_as_data_version(finished: MakeChain) -> None:
    chain = finished()
    one = chain.materialize("latents", partition="tiny/grow")
    assert data_versions(one, "latents") == {"tiny/grow": metadata(one, "latents", "tiny/grow")["fingerprint"]}
    several = data_versions(chain.materialize("latents"), "latents")
    assert len(set(several.values())) == 1  # all that Dagster takes: dagster#34013
    assert data_versions(chain.materialize("latents"), "latents") == several
    (chain.videos / "train/grow/grow_000.mp4").unlink()
    result = chain.materialize("latents")
    assert data_versions(result, "latents") != several
    refreshed = {"tiny/grow": metadata(result, "raw_clips", "tiny/grow")["fingerprint"]}
    assert data_versions(result, "raw_clips") == refreshed


def data_versions(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, str]:
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {
        event.partition: (event.tags or {})[DATA_VERSION_TAG]
        for event in events
        if event.asset_key.to_user_string() == asset
    }


def test_tables_become_markdown() -> None:
    table = markdown_table([{"file": "a|b.mp4", "share": 0.123456}, {"file": "two\nlines"}])
    assert table == "| file | share |\n| --- | --- |\n| a\\|b.mp4 | 0.1235 |\n| two lines |  |"


def test_an_empty_table_says_so() -> None:
    assert markdown_table([]) == "none"
