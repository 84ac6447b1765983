"""The real chain with its data root on a server that speaks S3: computed, found fresh, touched, run twice at once."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lvdd_assets import load_release
from lvdd_assets.cli import main
from lvdd_assets.distill import leftovers
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.places import parse_place
from tests.cli.entering import enter
from tests.conftest import CLASS_ASSETS, QUICK, Chain, MakeChain
from tests.s3_server import s3_server

pytestmark = pytest.mark.slow

DATASET_ASSETS = ("quantized_vae", "release", "eval_report")


@pytest.fixture
def chain(tmp_path: Path, make_chain: MakeChain) -> Iterator[Chain]:
    """A chain over a bucket, with nothing computed."""
    server = tmp_path / "server"
    server.mkdir()
    with s3_server(server) as bucket:
        chain = make_chain()
        chain.workspace = replace(chain.workspace, data_root=parse_place(f"{bucket}/team/root"))
        yield chain


def run_all(chain: Chain) -> set[str]:
    computed = chain.computed(chain.materialize(*CLASS_ASSETS))
    return computed | chain.computed(chain.materialize(*DATASET_ASSETS, config=QUICK))


def test_the_chain_on_an_object_store(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    every = {f"{name} tiny/{one}" for name in CLASS_ASSETS for one in ("grow", "move_left")}
    every |= {f"{name} tiny" for name in DATASET_ASSETS}
    assert run_all(chain) == every
    assert run_all(chain) == set()
    assert not (tmp_path / "data").exists()

    store = FileStore(chain.workspace.data_root, "release")
    release = load_release(store.fetch("tiny", "tiny.zarr.zip"))
    assert tuple(release.class_names) == ("grow", "move_left")
    assert store.path("tiny.zarr.zip").stat().st_size == release.stored_bytes

    _lvdd_keeps_house(chain, monkeypatch)
    _two_runs_at_once(chain, monkeypatch)

    (chain.videos / "train/grow/grow_000.mp4").unlink()
    result = chain.materialize(*CLASS_ASSETS)
    assert chain.computed(result) == {f"{name} tiny/grow" for name in CLASS_ASSETS}
    stale = {f"{one.step.name} {one.task.key}" for one in chain.pipeline.plan("tiny", QUICK) if one.is_stale}
    assert stale == {f"{name} tiny" for name in DATASET_ASSETS}


def _lvdd_keeps_house(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(chain, monkeypatch)
    config = chain.videos.parent / "quick.yaml"
    config.write_text(yaml.safe_dump({"ops": {name: {"config": values} for name, values in QUICK.items()}}))
    release = FileStore(chain.workspace.data_root, "release").fetch("tiny", "tiny.zarr.zip")
    for words, said in (
        (("stale", "tiny", "--check", "--config", str(config)), "tiny: all fresh"),
        (("verify", "tiny"), "11 partitions are what was written, 0 are damaged"),
        (("gc",), "nothing is left over"),
        (("inspect", str(release)), "in 2 classes"),
    ):
        result = CliRunner().invoke(main, list(words))
        assert result.exit_code == 0, result.output
        assert said in result.output, result.output


def _two_runs_at_once(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same classes, forced: both end well. Where both committed within the same moment, the version that lost is
    left, and found once its writer has ended.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            outcomes = chain.pipeline.bring_up_to_date("raw_clips", ["tiny/grow", "tiny/move_left"], {}, force=True)
            assert not any(outcome.cached for outcome in outcomes)
        except BaseException as error:
            failed.append(error)

    runs = [threading.Thread(target=work) for _ in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert failed == []
    store = chain.pipeline.step("raw_clips").store(chain.workspace.data_root)
    monkeypatch.setattr(leftovers, "writer_lives", lambda version: False)
    for leftover in leftovers.find_leftovers(store, lambda key: True, older_than=3600):
        leftover.remove()
    for key in ("tiny/grow", "tiny/move_left"):
        assert store.verify(key) == 1
        assert [child.name for child in store.folder(key).iterdir() if child.is_dir()] == [store.commit_of(key).version]
    assert all(not one.is_stale for one in chain.pipeline.plan("tiny", QUICK))
