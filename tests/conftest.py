"""Real video files for all tests, rendered once, and workspaces over them.

Partition definitions are built when the package is imported, so the registry that names the test's dataset is set
before that. Each test has a registry of its own with the same dataset and classes.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

REGISTRY = """
default: tiny
datasets:
  tiny:
    root: {root}
    layout: folders
    split: folders
    classes: [grow, move_left]
    frames: 8
    stride: 3
    size: 48
    budget: {budget}
    recipe: {recipe}
    vae: {vae}
    clips_per_class: {clips}
{more}
"""

_import_registry = Path(tempfile.mkdtemp(prefix="lvdd-tests-")) / "datasets.yaml"
_import_registry.write_text(
    REGISTRY.format(root="videos", budget="{ipc: 1}", recipe="tight", vae="embedded-2d", clips="3", more="")
)
for _name in ("LVDD_DATA_ROOT", "LVDD_WORKERS", "LVDD_DASK_SCHEDULER", "DAGSTER_HOME"):
    os.environ.pop(_name, None)
os.environ["LVDD_DATASETS"] = str(_import_registry)

from lvdd_assets import definitions  # noqa: E402
from lvdd_assets.incremental import Pipeline  # noqa: E402
from lvdd_assets.partitions import BY_CLASS, BY_DATASET  # noqa: E402
from lvdd_assets.resources import Workspace  # noqa: E402

CLASS_ASSETS = ("raw_clips", "latents", "dpp_subsets", "hosvd_cores")
QUICK = {"eval_report": {"epochs": 1, "batch_size": 4, "rivals": ["video"]}}


def pytest_sessionfinish() -> None:
    shutil.rmtree(_import_registry.parent, ignore_errors=True)


@dataclass
class Chain:
    """A workspace and what a test does with it."""

    workspace: Workspace
    videos: Path

    @property
    def pipeline(self) -> Pipeline:
        return definitions.build_pipeline(self.workspace)

    def materialize(
        self, *assets: str, partition: str = "tiny", config: Mapping[str, Any] | None = None, checks: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Runs assets of one level through Dagster as the command line does; a failure is in the result, not raised."""
        partitions = BY_CLASS if assets[0] in CLASS_ASSETS else BY_DATASET
        selection = dg.AssetSelection.assets(*assets)
        if not checks:
            selection = selection.without_checks()
        ops = {name: {"config": values} for name, values in (config or {}).items()}
        return dg.materialize(
            [*definitions.defs.assets, *definitions.defs.asset_checks],
            selection=selection,
            resources={"pipeline": self.pipeline},
            tags=dict(partitions.get_tags_for_partition_key(partition)),
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def computed(self, result: dg.ExecuteInProcessResult) -> set[str]:
        """Which partitions a successful run computed, "asset key", refreshed upstream included."""
        assert result.success, failure(result)
        return {
            f"{event.asset_key.to_user_string()} {event.partition}"
            for event in result.get_asset_materialization_events()
            if not event.step_materialization_data.materialization.metadata["cached"].value
        }


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The message of the first failed step."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None:
                return str(data.user_failure_data.description)
            return str(data.error)
    return ""


def metadata(result: dg.ExecuteInProcessResult, asset: str, key: str) -> dict[str, Any]:
    """What a run told Dagster about a partition."""
    for event in result.get_asset_materialization_events():
        if event.asset_key.to_user_string() == asset and event.partition == key:
            return {name: item.value for name, item in event.step_materialization_data.materialization.metadata.items()}
    raise AssertionError(f"no materialization of {asset} {key}")


@pytest.fixture(scope="session")
def rendered_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two motions of the demo, 5 train and 2 test clips each, as real H.264 files."""
    from lvdd_assets.distill.demo import FPS, render_clip
    from lvdd_assets.distill.video import write_clip

    root = tmp_path_factory.mktemp("rendered") / "videos"
    for split, count, start in (("train", 5, 0), ("test", 2, 100)):
        for motion in ("grow", "move_left"):
            folder = root / split / motion
            folder.mkdir(parents=True)
            for index in range(count):
                write_clip(folder / f"{motion}_{index:03d}.mp4", render_clip(motion, seed=start + index), fps=FPS)
    return root


MakeChain = Callable[..., Chain]


def _make(folder: Path, **options: str) -> Chain:
    values = {
        "root": "videos",
        "budget": "{bytes: 90kB}",
        "recipe": "tight",
        "vae": "embedded-2d",
        "clips": "3",
        "more": "",
        **options,
    }
    values["more"] = "\n".join(f"    {line}" for line in values["more"].splitlines())
    registry = folder / "datasets.yaml"
    registry.write_text(REGISTRY.format(**values))
    return Chain(Workspace(registry, folder / "data"), folder / "videos")


@pytest.fixture
def make_chain(rendered_videos: Path, tmp_path: Path) -> MakeChain:
    """A chain over copied videos with nothing computed; called again it only rewrites the registry."""

    def make(**options: str) -> Chain:
        if not (tmp_path / "videos").exists():
            shutil.copytree(rendered_videos, tmp_path / "videos")
        return _make(tmp_path, **options)

    return make


@pytest.fixture(scope="session")
def finished_folder(rendered_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole chain has run once."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(rendered_videos, folder / "videos")
    chain = _make(folder)
    for assets in (CLASS_ASSETS, ("quantized_vae", "release", "eval_report")):
        result = chain.materialize(*assets, config=QUICK if "eval_report" in assets else None)
        assert result.success, failure(result)
    return folder


@pytest.fixture
def finished(finished_folder: Path, tmp_path: Path) -> MakeChain:
    """A chain in which everything has been computed, to be changed at will; options rewrite the registry."""

    def make(**options: str) -> Chain:
        if not (tmp_path / "data").exists():
            shutil.copytree(finished_folder, tmp_path, dirs_exist_ok=True)
        return _make(tmp_path, **options)

    return make


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a small random autoencoder of each class. Never written to."""
    from tests.distill.autoencoders import KINDS, small_model

    root = tmp_path_factory.mktemp("autoencoders")
    for kind in KINDS:
        small_model(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a small AutoencoderTiny that a test may damage."""
    from tests.distill.autoencoders import small_model

    path = tmp_path / "tiny"
    small_model("AutoencoderTiny").save_pretrained(path)
    return path


OWN_MODULE = '''
import torch
from torch import nn

class Pooling(nn.Module):
    """Averages 2 frames of 4 by 4 pixels; two latent channels that it makes up. One number is learnt."""

    def __init__(self, gain=2.0):
        super().__init__()
        self.config = {"gain": gain}
        self.gain = nn.Parameter(torch.tensor([gain]))
        self.encoder = nn.Linear(5, 5)

    def encode(self, clips):
        pooled = nn.functional.avg_pool3d(clips, (2, 4, 4))
        return self.gain * pooled[:, :2]

    def decode(self, latents):
        grown = nn.functional.interpolate(latents / self.gain, scale_factor=(2, 4, 4))
        return torch.cat([grown, grown[:, :1]], dim=1)

class Shrinking(Pooling):
    def decode(self, latents):
        return super().decode(latents)[:, :, 1:]
'''


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an importable module with an autoencoder that is no part of diffusers."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name
