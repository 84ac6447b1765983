"""`raw_clips`: the sampled, resized frames of every usable video file of a class."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import numpy as np
from tqdm import tqdm

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.ingestion import ClassRecord, ListedClass, ingest
from lvdd_assets.distill.listing import list_dataset
from lvdd_assets.distill.places import Place
from lvdd_assets.distill.report_pictures import contact_sheet
from lvdd_assets.distill.stores import ZarrStore, digest_cache
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_CLASS
from lvdd_assets.steps import Outside, Step, Task

# Longer tables go to the store alone: metadata is kept for ever with every run.
_MAX_SHOWN = 50
# So is this picture, of each of hundreds of classes.
_PREVIEW_QUALITY = 85


class RawClipsConfig(StepConfig):
    """Clip shape, sampling and split come from the registry; there is nothing else to choose."""


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {**asdict(spec.shape), **asdict(spec.sampling)}


def _outside(spec: DatasetSpec, classes: Sequence[str], data_root: Place) -> Mapping[str, Outside]:
    """The files of each class and the hash of all that is known of them: content, side of the split, what is left
    out."""
    listings = list_dataset(spec)
    wanted = {name: listings[name] for name in classes}
    paths = [spec.root / clip.name for listing in wanted.values() for clip in listing.clips]
    with tqdm(desc="hash files", unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False) as bar:
        num_threads = len(os.sched_getaffinity(0))

        def progress(num_bytes: int) -> None:
            bar.update(num_bytes)

        digests = digest_cache(data_root).digests(paths, num_threads=num_threads, progress=progress)
    outside = {}
    for name, listing in wanted.items():
        listed = ListedClass(listing, tuple(digests[spec.root / clip.name] for clip in listing.clips))
        contents = [digest.sha256 if digest else None for digest in listed.digests]
        text = json.dumps([asdict(listing), contents], sort_keys=True)
        outside[name] = Outside({"files": hashlib.sha256(text.encode()).hexdigest()}, listed)
    return outside


def _compute(task: Task) -> None:
    spec, listed = task.dataset, task.payload
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        record = ingest(
            spec.root, listed, spec.shape, spec.sampling, append=out.append, num_processes=task.num_processes
        )
        if not record.clips["train"]:
            raise ValueError(_why_empty(task.class_name, listed, record))
        excluded = [asdict(item) for item in record.excluded]
        sheet = contact_sheet(np.stack(record.previews), jpeg_quality=_PREVIEW_QUALITY)
        out.put("preview", np.frombuffer(sheet, dtype=np.uint8))
        out.put_json(
            "files",
            {
                **record.clips,
                "excluded": excluded,
                "missing": listed.listing.missing,
                "unused": listed.listing.unused,
            },
        )
        changed = record.rows(spec.shape.stride)
        num_clips = sum(map(len, record.clips.values()))
        out.metrics = {
            "num_train": len(record.clips["train"]),
            "num_test": len(record.clips["test"]),
            "num_train_videos": record.num_videos["train"],
            "num_test_videos": record.num_videos["test"],
            "num_found": sum(record.num_videos.values()) + len(excluded),
            "num_excluded": len(excluded),
            "num_missing": len(listed.listing.missing),
            "num_unused": len(listed.listing.unused),
            "num_shortened": len(changed),
            "num_repeated_frames": sum(row["num_repeated"] for row in changed),
            "num_fewer_windows": record.num_fewer_windows,
            "train_file_bytes": record.file_bytes,
            "raw_bytes": num_clips * spec.shape.frames * 3 * spec.shape.size**2,
            "excluded": excluded[:_MAX_SHOWN],
            "shortened": changed[:_MAX_SHOWN],
            "missing": list(listed.listing.missing[:_MAX_SHOWN]),
        }


def _why_empty(class_name: str, listed: ListedClass, record: ClassRecord) -> str:
    first = f"First exclusion: {record.excluded[0].file}: {record.excluded[0].reason}. " if record.excluded else ""
    missing = f", {len(listed.listing.missing)} listed files missing" if listed.listing.missing else ""
    return (
        f"class {class_name!r} has no usable train clip: {len(record.excluded)} files excluded{missing}, "
        f"{len(record.clips['test'])} test clips. {first}Add clips, mend the split, or list the "
        "classes to use by `classes` in the registry."
    )


STEP = Step(
    name="raw_clips",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=RawClipsConfig.defaults(),
    outside=_outside,
    module=__name__,
)


@dg.asset(
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"video", "zarr"},
    code_version=STEP.code_version,
    description=(
        "Clips of one class as uint8 [N, T, C, H, W], train and test apart: T frames at the registry's stride, from "
        "the windows that its sampling names, short side resized, centre cropped. Files that cannot be used are left "
        "out by name, with the reason; files that the publisher lists and that are absent are counted."
    ),
)
def raw_clips(
    context: dg.AssetExecutionContext, config: RawClipsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)
