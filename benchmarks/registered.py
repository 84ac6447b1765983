"""Datasets of the benchmarks' registry, as the pipeline stores them; for the benchmarks beside it."""

import tempfile
from pathlib import Path

import numpy as np

REGISTRY = Path(__file__).parent / "development.yaml"


def class_latents(dataset: str) -> list[np.ndarray]:
    """Train latents of each class, [N, T, C, h, w]; what is made on the way is thrown away."""
    # Here, so that processes whose memory is measured do not hold the pipeline.
    from lvdd_assets.assets import latents, raw_clips
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.distill.stores import ZarrStore
    from lvdd_assets.incremental import Pipeline
    from lvdd_assets.resources import Workspace

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(REGISTRY, Path(folder), 1)
        pipeline = Pipeline(workspace, (raw_clips.STEP, latents.STEP), progress=False)
        keys = [f"{dataset}/{name}" for name in class_names(workspace.catalog().dataset(dataset))]
        for step in ("raw_clips", "latents"):
            pipeline.bring_up_to_date(step, keys, dict(pipeline.step(step).defaults))
        return [ZarrStore(workspace.data_root, "latents").open(key).read("latents") for key in keys]
