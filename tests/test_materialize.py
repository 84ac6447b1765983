"""What Dagster is told: every partition with its figures, refreshed upstream included, failures in one sentence."""

import pytest

from lvdd_assets.materialize import markdown_table
from tests.conftest import MakeChain, failure, metadata


def test_each_partition_gets_its_own_metadata(finished: MakeChain) -> None:
    result = finished().materialize("latents")
    one, other = (metadata(result, "latents", key) for key in ("tiny/grow", "tiny/move_left"))
    assert one["cached"] is other["cached"] is True
    assert one["fingerprint"] != other["fingerprint"]
    assert one["psnr_db"] != other["psnr_db"]
    assert one["config"] == {"posterior": "mode", "seed": 0, "precision": "auto"}
    assert one["preview"].startswith("![preview](data:image/png;base64,")


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


def test_tables_become_markdown() -> None:
    table = markdown_table([{"file": "a|b.mp4", "share": 0.123456}, {"file": "two\nlines"}])
    assert table == "| file | share |\n| --- | --- |\n| a\\|b.mp4 | 0.1235 |\n| two lines |  |"


def test_an_empty_table_says_so() -> None:
    assert markdown_table([]) == "none"
