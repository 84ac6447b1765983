"""Runs a step for an asset and tells Dagster what became of each partition: the one bridge from `incremental` to
events.

What is computed belongs to the assets, what is skipped to `incremental`; here stands only how it is shown.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG
from pydantic import Field

from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.steps import Outcome, StepError

# Above this many partitions in a run, previews would swamp the event log.
_MAX_PREVIEWS = 64
_STORED_PICTURES = ("preview", "projection", "spectrum")

_PAIRS = "Each row is a clip as it was, and under it "
_CAPTIONS = {
    ("raw_clips", "preview"): "Sampled clips, one a row.",
    ("latents", "preview"): _PAIRS + "as the autoencoder gives it back.",
    ("dpp_subsets", "preview"): "Clips that are kept, one a row.",
    ("dpp_subsets", "projection"): "The class's latents in the plane of their first two principal components.",
    ("hosvd_cores", "preview"): _PAIRS + "as it comes back from a middle rate.",
    ("hosvd_cores", "spectrum"): "Singular values of the latents, and what the coded class still has of them.",
    ("quantized_vae", "preview"): "Each row is a clip by the original decoder, and under it by the quantised one.",
    ("release", "ledger"): "Bytes of the release by what they are for, under the mark of what is allowed.",
    ("release", "classes"): "Bytes of each class's clips, beside an equal share of what is allowed.",
    ("eval_report", "preview"): _PAIRS + "as it comes out of the release.",
    ("eval_report", "curve"): "Accuracy of training on releases of several sizes, each kept in several ways.",
}
KEEP_SETTINGS = {"lvdd/settings": "kept"}
"""Tag of a run that is to make partitions with the settings that each was made with, whatever its config says."""


class StepConfig(dg.Config):
    """What every asset's run config has."""

    force: bool = Field(
        default=False,
        description="Compute these partitions although they are fresh. It is no setting: nothing depends on it.",
    )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The settings with their defaults."""
        return cls().settings()

    def settings(self) -> dict[str, Any]:
        """What results depend on."""
        return self.model_dump(exclude={"force"})


def materialize(
    context: dg.AssetExecutionContext, pipeline: Pipeline, name: str, config: StepConfig
) -> dg.MaterializeResult:
    """Brings the run's partitions of an asset up to date and reports each, cached or computed.

    Raises:
        dagster.Failure: with the message that the step gave; nothing stored before is lost.
    """
    keys = list(context.partition_keys)
    try:
        settings = None if _keeps_settings(context.run.tags) else config.settings()
        outcomes = pipeline.bring_up_to_date(name, keys, settings, force=config.force)
    except (StepError, ValueError) as error:
        # Without the chain of causes: the message says it all, and would stand twice between two stacks.
        raise dg.Failure(str(error), allow_retries=False) from None
    for outcome in outcomes:
        metadata = _describe(pipeline, outcome, with_preview=len(outcomes) <= _MAX_PREVIEWS)
        if outcome.step == name:
            context.add_asset_metadata(metadata, asset_key=name, partition_key=outcome.key)
        else:
            _report_refreshed(context, outcome, metadata)
    own = [outcome for outcome in outcomes if outcome.step == name]
    computed = [outcome.key for outcome in own if not outcome.cached]
    which = f" ({', '.join(computed)})" if 0 < len(computed) <= 8 else ""
    above = sorted(f"{outcome.step} {outcome.key}" for outcome in outcomes if outcome.step != name)
    also = f"; refreshed above: {', '.join(above)}" if above else ""
    context.log.info(
        f"{name}: computed {len(computed)} of {len(own)} partitions{which}, {len(own) - len(computed)} fresh{also}"
    )
    return dg.MaterializeResult(data_version=_data_version(own))


def report_outcomes(context: dg.OpExecutionContext, pipeline: Pipeline, outcomes: Sequence[Outcome]) -> None:
    """Tells the lineage of partitions that were brought up to date outside of a run over their asset."""
    for outcome in outcomes:
        metadata = _describe(pipeline, outcome, with_preview=len(outcomes) <= _MAX_PREVIEWS)
        _log(context, outcome, metadata)


def _report_refreshed(context: dg.AssetExecutionContext, outcome: Outcome, metadata: Mapping[str, Any]) -> None:
    """Shows in the lineage that a stale partition above was refreshed on the way."""
    _log(context, outcome, metadata)
    # Dagster has looked at what is above before the asset's body ran. Without this it would take the asset for made
    # from what was there then, and show it as stale.
    context.get_step_execution_context().wipe_input_asset_version_info(dg.AssetKey(outcome.step))


def _log(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, outcome: Outcome, metadata: Mapping[str, Any]
) -> None:
    tags = {DATA_VERSION_TAG: outcome.commit.fingerprint}
    context.log_event(
        dg.AssetMaterialization(asset_key=outcome.step, partition=outcome.key, metadata=metadata, tags=tags)
    )


def _keeps_settings(tags: Mapping[str, str]) -> bool:
    """Whether nobody chose a run's config: Dagster's automation fills in defaults, which are nobody's wish either."""
    return AUTOMATION_CONDITION_TAG in tags or KEEP_SETTINGS.items() <= tags.items()


def _data_version(outcomes: Sequence[Outcome]) -> dg.DataVersion:
    """The fingerprint, so that Dagster knows as well that what is fresh has not changed.

    Dagster writes one version to all partitions of a run (dagster#34013): where there are several it is the hash of
    all their fingerprints, which is the same whenever the same partitions are run and none has changed.
    """
    fingerprints = [outcome.commit.fingerprint for outcome in outcomes]
    if len(fingerprints) == 1:
        return dg.DataVersion(fingerprints[0])
    return dg.DataVersion(hashlib.sha256("".join(fingerprints).encode()).hexdigest())


def _describe(pipeline: Pipeline, outcome: Outcome, *, with_preview: bool) -> dict[str, Any]:
    """An outcome as Dagster metadata, in the order of its pages: what became of it, its pictures and figures, then what
    it took and what it was made from."""
    metadata: dict[str, Any] = {"cached": outcome.cached}
    if outcome.reason:
        metadata["reason"] = outcome.reason
    if with_preview:
        # The pages show Markdown of more than 1000 letters after a click, and every picture is more.
        for name, picture in _pictures(pipeline, outcome).items():
            text = base64.b64encode(picture).decode()
            kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
            caption = _CAPTIONS.get((outcome.step, name), "")
            metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/{kind};base64,{text})\n\n{caption}".rstrip())
    for name, value in outcome.commit.metrics.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            metadata[name] = dg.MetadataValue.md(markdown_table(value))
        elif isinstance(value, list):
            metadata[name] = dg.MetadataValue.json(_rounded(value))
        elif value is not None:
            metadata[name] = _rounded(value)
    metadata["seconds"] = round(outcome.taken.seconds, 3)
    if outcome.taken.peak_bytes is not None:
        metadata["peak_memory_mb"] = round(outcome.taken.peak_bytes / 1e6)
    metadata["config"] = dict(outcome.commit.settings.get("config", {}))
    metadata["code_version"] = outcome.commit.code
    metadata["fingerprint"] = outcome.commit.fingerprint
    return metadata


def _rounded(value: Any) -> Any:
    """A figure for people: six digits of every float in it; the store has them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _pictures(pipeline: Pipeline, outcome: Outcome) -> dict[str, bytes]:
    """Pictures that a partition stores, by name: those of its files, or its arrays that hold one."""
    store = pipeline.step(outcome.step).store(pipeline.workspace.data_root)
    if isinstance(store, FileStore):
        names = [name for name in outcome.commit.files if name.endswith(".png")]
        return {PurePosixPath(name).stem: store.read(outcome.key, name) for name in names}
    partition = store.open(outcome.key)
    return {name: partition.read(name).tobytes() for name in _STORED_PICTURES if partition.num_rows(name)}


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as a table in Markdown; "none" where there are none."""
    if not rows:
        return "none"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
