"""Lost files are a warning with their names, too many of them an error that stops the run."""

import dagster as dg

from tests.conftest import Chain, MakeChain


def _evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [item for item in result.get_asset_check_evaluations() if item.check_name == "videos_are_usable"]
    return found


def _spoil(chain: Chain, *names: str) -> None:
    for name in names:
        (chain.videos / name).write_text("<html>404</html>")


def test_all_usable(make_chain: MakeChain) -> None:
    check = _evaluation(make_chain().materialize("raw_clips"))
    assert check.passed
    assert check.description == "14 of 14 video files gave clips"
    assert (check.metadata["num_found"].value, check.metadata["num_excluded"].value) == (14, 0)


def test_a_few_lost_files_are_a_warning(make_chain: MakeChain) -> None:
    chain = make_chain(more="max_lost_share: 0.2")
    _spoil(chain, "train/grow/grow_000.mp4")
    result = chain.materialize("raw_clips")
    check = _evaluation(result)
    assert result.success
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.description.startswith(
        "13 of 14 video files gave clips; left out: train/grow/grow_000.mp4: not a video"
    )
    table = str(check.metadata["excluded"].value)
    assert "train/grow/grow_000.mp4" in table
    assert "not a video" in table
    assert "| tiny/grow | 7 | 1 | 14.3% | 20.0% | 0 |" in str(check.metadata["classes"].value)


def test_too_many_lost_files_stop_the_run(make_chain: MakeChain) -> None:
    chain = make_chain()  # by default a tenth of a class may be lost, here it is a seventh
    _spoil(chain, "train/grow/grow_000.mp4")
    result = chain.materialize("raw_clips", "latents")
    check = _evaluation(result)
    assert not result.success
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "left out: train/grow/grow_000.mp4: not a video" in check.description
    assert "Lost more than the allowed share: tiny/grow. Mend or remove the files" in check.description
    assert "latents" not in {event.step_key for event in result.all_events if event.is_step_start}


def test_many_lost_files_are_counted_and_the_first_named(make_chain: MakeChain) -> None:
    chain = make_chain(more="max_lost_share: 1")
    _spoil(chain, *(f"train/grow/grow_{index:03d}.mp4" for index in range(4)))
    said = _evaluation(chain.materialize("raw_clips")).description
    assert all(f"grow_{index:03d}.mp4" in said for index in range(3))
    assert "grow_003" not in said
    assert said.endswith("; and 1 more")


def test_a_run_is_judged_by_its_own_classes(make_chain: MakeChain) -> None:
    chain = make_chain()
    _spoil(chain, "train/grow/grow_000.mp4")
    assert not chain.materialize("raw_clips").success
    other = chain.materialize("raw_clips", partition="tiny/move_left")
    assert other.success
    assert _evaluation(other).passed
    assert _evaluation(other).metadata["num_found"].value == 7


def test_absent_files_are_counted_and_do_not_fail(make_chain: MakeChain) -> None:
    """A class whose listed files are partly absent passes: every copy of Kinetics is like that."""
    chain = make_chain()
    assert chain.materialize("raw_clips").success
    from lvdd_assets.distill.stores import ZarrStore

    store = ZarrStore(chain.workspace.data_root, "raw_clips")
    old = store.open("tiny/grow")
    with store.write(
        "tiny/grow", old.commit.fingerprint, settings=old.commit.settings, inputs=old.commit.inputs
    ) as out:
        out.append("train", old.read("train"))
        out.put("preview", old.read("preview"))
        out.metrics = {**old.commit.metrics, "num_missing": 3}
    check = _evaluation(chain.materialize("raw_clips"))
    assert check.passed
    assert check.description == "14 of 14 video files gave clips; 3 more are listed by the publisher and absent"
