"""Evaluates a release file against a dataset's stores: the one way for the asset and for `lvdd evaluate`.

What is compared and how it is trained belongs to `distill.comparison` and `distill.protocols`; here stands where clips
and scores lie, and what the report says beside the figures.
"""

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from tqdm import tqdm

from lvdd_assets import timings
from lvdd_assets.distill import comparison, evaluation
from lvdd_assets.distill.benches import Bench
from lvdd_assets.distill.catalog import DatasetSpec, parse_bytes
from lvdd_assets.distill.class_coding import CodedClass
from lvdd_assets.distill.comparison import Compared, Open, Trainer
from lvdd_assets.distill.devices import find_device
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.measuring import Stage as MeasuredStage
from lvdd_assets.distill.measuring import measure
from lvdd_assets.distill.places import Place, cache_folder
from lvdd_assets.distill.protocols import Protocol, named_protocol
from lvdd_assets.distill.release import Release
from lvdd_assets.distill.report_data import Metric, Preview, ReportData, Sheet, Stage
from lvdd_assets.distill.report_pictures import looping_preview, pair_sheet
from lvdd_assets.distill.score_cache import ScoreCache
from lvdd_assets.distill.scores import Row
from lvdd_assets.distill.stores import Partition, ZarrStore
from lvdd_assets.distill.training_sets import TrainingSet
from lvdd_assets.incremental import Pipeline
from lvdd_assets.partitions import class_key

SCORES = "scores"
"""Folder beside the data in which scores are kept by fingerprint."""

# The literature reports these by top-5; all figures are stored either way.
_TOP5_LAYOUTS = ("kinetics400", "ssv2")
_NUM_PREVIEWS = 4
_FRAMES_PER_SECOND = 8


@dataclass(frozen=True)
class Site:
    """Where a dataset lies and where things are computed.

    Attributes:
        dataset: the registry's entry.
        class_names: its classes, in the order of the labels.
        open_partition: opens what a step stored of a class ("" for the dataset).
        data_root: of the stores.
        device: in torch's words.
    """

    dataset: DatasetSpec
    class_names: tuple[str, ...]
    open_partition: Open
    data_root: Place
    device: str


def protocol_of(config: Mapping[str, Any], num_clips: int) -> Protocol:
    """The protocol that a run's config asks for; what it leaves open is the preset's."""
    changes = {name: config[name] for name in ("network", "epochs", "batch_size", "learning_rate", "counting")}
    for name in ("augmentation", "seeds"):
        changes[name] = None if config[name] is None else tuple(config[name])
    return named_protocol(config["protocol"], num_clips, **changes)


def evaluate_release(site: Site, release: Release, config: Mapping[str, Any], *, allowed: int, own: bool) -> ReportData:
    """Trains on a release and on what it is compared with, and gathers what a report says.

    Args:
        site: the dataset and where it lies.
        release: as its loader gives it.
        config: the fields of `EvalReportConfig`.
        allowed: the allowance in bytes.
        own: whether the release was made from this site's stored selection, so that its clips can be shown beside the
            originals that they come from.

    Raises:
        ValueError: the release is of another dataset, a class has no clips, or the config is wrong.
    """
    rivals, curve = config["rivals"], [parse_bytes(size) for size in config["curve"]]
    chain = comparison.needs_chain(rivals, curve)
    originals = comparison.stored_originals(
        site.open_partition, site.dataset, site.class_names, selected=own or chain, latents=chain
    )
    protocol = protocol_of(config, originals.total_clips)
    metric: Metric = "top5" if site.dataset.layout in _TOP5_LAYOUTS else "top1"
    test = comparison.read_split(site.open_partition, site.class_names, "test")
    with measure("evaluation") as stage, _bars() as (progress, announce):
        trainer = Trainer(
            protocol, site.device, ScoreCache(cache_folder(site.data_root) / SCORES), progress, announce, metric
        )
        compared = comparison.compare_release(release, originals, test, trainer, rivals=rivals, curve=curve)
    sheets, previews = _pictures(release, originals) if own else ((), ())
    taken = timings.recall(site.data_root, site.dataset.name)
    stages = [Stage(step, one.seconds, one.peak_bytes) for step, one in taken.items() if step != "eval_report"]
    return ReportData(
        dataset=release.name,
        class_names=release.class_names,
        rows=compared.rows,
        allowed_bytes=allowed,
        ledger=release.ledger,
        settings=_shown_settings(site.dataset, release, protocol),
        provenance=release.provenance,
        versions=_versions(site.device),
        sheets=sheets,
        notes=_failures(compared),
        not_run=compared.not_run,
        curve=compared.curve,
        stages=(*stages, Stage("evaluation", stage.seconds, stage.peak_bytes)),
        previews=previews,
        metric=metric,
    )


def _failures(compared: Compared) -> tuple[str, ...]:
    return tuple(
        f"{row.result.name}: seed {seed} is missing, {reason}"
        for row in compared.rows
        for seed, reason in row.result.failures
    )


@contextmanager
def _bars() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """A bar with the time left on a terminal, nothing elsewhere: how far, and with what."""
    with tqdm(desc="evaluate", unit="update", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            if total != bar.total:  # another comparison of the same evaluation
                bar.reset(total)
            bar.update(done - bar.n)

        yield progress, lambda text: bar.set_description(f"evaluate: {text}")


def _pictures(release: Release, originals: Any) -> tuple[tuple[Sheet, ...], tuple[Preview, ...]]:
    before, after, names = comparison.paired_clips(release, originals, _NUM_PREVIEWS)
    sheet = Sheet(pair_sheet(before, after), f"Original clip and, below it, the release's: {', '.join(names)}")
    preview = Preview(
        looping_preview(before, after, frames_per_second=_FRAMES_PER_SECOND),
        "image/webp",
        f"The same clips in motion: {', '.join(names)}",
    )
    return (sheet,), (preview,)


def _shown_settings(spec: DatasetSpec, release: Release, protocol: Protocol) -> dict[str, object]:
    shape = spec.shape
    return {
        "clip": f"{shape.frames} frames, stride {shape.stride}, {shape.size}×{shape.size}",
        "recipe": release.provenance.get("recipe", ""),
        "autoencoder": release.provenance.get("vae", ""),
        "quantiser step": _step(release),
        **{name.replace("_", " "): _plain(value) for name, value in asdict(protocol).items() if value is not None},
    }


def _plain(value: object) -> object:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else value


def _step(release: Release) -> str:
    steps = {coded.step for coded in release.coded if isinstance(coded, CodedClass)}
    if not steps:
        return "none: video"
    return f"{min(steps):g}" if len(steps) == 1 else f"{min(steps):g} to {max(steps):g}"


def _versions(device: str) -> dict[str, object]:
    packages = {name: version(name) for name in ("lvdd-assets", "dagster", "torch", "diffusers", "zarr")}
    return {"python": platform.python_version(), **packages, "device": device, "threads": torch.get_num_threads()}


def make_bench(site: Site, config: Mapping[str, Any], announce: Callable[[str], None]) -> Bench:
    """A dataset for the paper's tables: its originals, and how sets made of them are judged.

    Args:
        site: the dataset; its chain has been run.
        config: the fields of `EvalReportConfig`.
        announce: called with what is trained next.
    """
    originals = comparison.stored_originals(
        site.open_partition, site.dataset, site.class_names, selected=True, latents=True
    )
    test = comparison.read_split(site.open_partition, site.class_names, "test")

    def evaluate(sets: Sequence[TrainingSet], protocol: Protocol) -> list[Row]:
        return evaluation.compare(
            {made.name: made.dataset for made in sets},
            test,
            num_classes=len(site.class_names),
            protocol=protocol,
            announce=announce,
            class_names=site.class_names,
            device=site.device,
            cache=ScoreCache(cache_folder(site.data_root) / SCORES),
        )

    taken = timings.recall(site.data_root, site.dataset.name)
    stages = tuple(MeasuredStage(step, one.seconds, None, one.peak_bytes) for step, one in taken.items())
    return Bench(originals, evaluate, protocol_of(config, originals.total_clips), stages)


def bring_site_up(pipeline: Pipeline, spec: DatasetSpec, config: Mapping[str, Any]) -> Site:
    """A dataset's stores with what an evaluation reads: raw clips, made where they are not fresh; and where recipes are
    compared, the chain down to the decoder, which must have been run before.

    Raises:
        StepError: something failed, or was never made.
    """
    names = class_names(spec)
    pipeline.bring_up_to_date("raw_clips", [class_key(spec.name, name) for name in names], None)
    if comparison.needs_chain(config["rivals"], config["curve"]):
        pipeline.bring_up_to_date("quantized_vae", [spec.name], None)
    root = pipeline.workspace.data_root

    def open_partition(step: str, class_name: str) -> Partition:
        return ZarrStore(root, step).open(class_key(spec.name, class_name) if class_name else spec.name)

    return Site(spec, tuple(names), open_partition, root, find_device(pipeline.workspace.device))
