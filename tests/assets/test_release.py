"""The file fills its budget and never breaks it; a changed budget recodes no class."""

from pathlib import Path

from lvdd_assets import load_release
from lvdd_assets.distill.release import Release
from tests.conftest import Chain, MakeChain


def _path(chain: Chain) -> Path:
    return chain.workspace.data_root / "release" / "tiny.zarr.zip"


def _load(chain: Chain) -> Release:
    return load_release(_path(chain))


def test_the_file_holds_the_dataset_within_its_budget(finished: MakeChain) -> None:
    chain = finished()
    release = _load(chain)
    assert release.class_names == ("grow", "move_left")
    assert release.stored_bytes <= 90_000
    assert int(release.ledger["bytes"].sum()) == release.stored_bytes
    clip, label = release.dataset()[0]
    assert (tuple(clip.shape), label) == ((8, 3, 48, 48), 0)
    assert set(release.provenance["inputs"]) == {
        "hosvd_cores tiny/grow",
        "hosvd_cores tiny/move_left",
        "quantized_vae tiny",
    }


def test_a_changed_budget_or_licence_recodes_no_class(finished: MakeChain) -> None:
    assert "license" not in _load(finished()).provenance
    sizes, steps = [], []
    for budget in ("46800", "47300", "48500"):
        chain = finished(budget=f"{{bytes: {budget}}}", more="license: cc-by-4.0")
        assert chain.computed(chain.materialize("release")) == {"release tiny"}
        sizes.append(_load(chain).stored_bytes)
        steps.append(_load(chain).coded[0].step)
        assert _load(chain).provenance["license"] == "cc-by-4.0"
    assert sizes[0] < sizes[2]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) > 1
    for size, allowed in zip(sizes, (46_800, 47_300, 48_500), strict=True):
        assert allowed - 40 <= size <= allowed  # a step of the grid is 1 % of the cores, here some 1,000 B


def test_a_lost_file_is_back_and_one_lost_with_its_version_is_made_again(finished: MakeChain) -> None:
    chain = finished()
    data = _path(chain).read_bytes()
    _path(chain).unlink()
    assert chain.computed(chain.materialize("release")) == set()
    assert _path(chain).read_bytes() == data
    _path(chain).unlink()
    (stored,) = (chain.workspace.data_root / "release/.versions/tiny").rglob("tiny.zarr.zip")
    stored.unlink()
    assert chain.computed(chain.materialize("release")) == {"release tiny"}
    assert _path(chain).read_bytes() == data  # same inputs, same bytes
