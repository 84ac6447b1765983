"""Jobs, named for what people do with them."""

import dagster as dg

from lvdd_assets.partitions import BY_CLASS, BY_DATASET

CLASS_ASSETS = ("raw_clips", "latents", "dpp_subsets", "hosvd_cores")
DATASET_ASSETS = ("quantized_vae", "release", "eval_report")

distill_classes = dg.define_asset_job(
    "distill_classes",
    selection=dg.AssetSelection.assets(*CLASS_ASSETS),
    partitions_def=BY_CLASS,
    description="From video files to coded cores, class by class; recomputes only what is stale.",
)

release_dataset = dg.define_asset_job(
    "release_dataset",
    selection=dg.AssetSelection.assets(*DATASET_ASSETS),
    partitions_def=BY_DATASET,
    description="From coded cores to the release file within its budget and the report on what it is worth.",
)

JOBS = (distill_classes, release_dataset)
