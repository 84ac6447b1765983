"""Storage budget as asset checks: a warning for each class, a blocking error for the release file.

The judging functions are pure and stand in `distill.budget`; here they meet what lies on disk.
"""

import dagster as dg

from lvdd_assets.distill.budget import allowed_bytes, format_bytes, judge_class, judge_release
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.commits import StoreError
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import markdown_table
from lvdd_assets.partitions import class_key, datasets_of_run
from lvdd_assets.steps import some

_MAX_SHOWN = 50  # classes; those that do not fit come first


def _allowed(spec: DatasetSpec) -> int:
    return allowed_bytes(spec.budget, num_classes=len(class_names(spec)), shape=spec.shape)


@dg.asset_check(
    asset="hosvd_cores",
    name="classes_fit_their_share",
    description="Each class, with all its clips in the smallest coding, fits an equal share of the dataset's budget.",
)
def classes_fit_their_share(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    """Warns of classes for which the release will have to leave out clips, or that alone break the budget."""
    store = ZarrStore(pipeline.workspace.data_root, "hosvd_cores")
    rows, failed = [], []
    for spec in datasets_of_run(context, pipeline.workspace.catalog()):
        names, allowed = class_names(spec), _allowed(spec)
        for name in names:
            commit = store.commit_of(class_key(spec.name, name))
            if commit is None:
                continue
            smallest = commit.metrics.get("smallest_bytes", commit.metrics.get("bytes"))
            verdict = judge_class(coded_bytes=smallest, allowed=allowed, num_classes=len(names))
            fits = "yes" if verdict.passed else "NO"
            rows.append({"class": f"{spec.name}/{name}", "fits": fits, "why": verdict.reasons[0]})
            if not verdict.passed:
                failed.append(f"{spec.name}/{name}")
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(rows) - len(failed)} of {len(rows)} classes fit their share of the budget",
        metadata={
            "num_classes": len(rows),
            "num_over_their_share": len(failed),
            "over_their_share": some(failed) if failed else "none",
            "classes": dg.MetadataValue.md(markdown_table(sorted(rows, key=lambda row: row["fits"])[:_MAX_SHOWN])),
        },
    )


@dg.asset_check(
    asset="release",
    name="release_fits_its_budget",
    blocking=True,
    description=(
        "The release file on disk holds every class, is no larger than the budget, and each of its bytes "
        "is in the ledger."
    ),
)
def release_fits_its_budget(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    """Stops what comes after when a release breaks its promise."""
    from lvdd_assets.distill.release import SUFFIX, read_ledger

    store = FileStore(pipeline.workspace.data_root, "release")
    passed, sentences, tables = True, [], []
    measured, allowances = {}, {}
    for spec in datasets_of_run(context, pipeline.workspace.catalog()):
        name, allowed = f"{spec.name}{SUFFIX}", _allowed(spec)
        try:
            path, is_committed = store.published(spec.name, name)
            ledger, size = read_ledger(path), path.stat().st_size
        except (StoreError, ValueError) as error:
            passed = False
            sentences.append(f"{spec.name}: {error}. Materialize release again")
            continue
        verdict = judge_release(ledger, file_bytes=size, allowed=allowed, expected_classes=class_names(spec))
        passed &= verdict.passed and is_committed
        reasons = verdict.reasons if is_committed else (*verdict.reasons, "it is not the file that was made here")
        if size > allowed and spec.recipe == "paper":
            reasons = (*reasons, "recipe paper has one size: lower rank_ratio or clips_per_class, or raise the budget")
        sentences.append(f"{spec.name}: {'; '.join(reasons)}")
        measured[spec.name], allowances[spec.name] = size, allowed
        lines = [f"| {line.part} | {line.class_name} | {line.num_bytes} |" for line in ledger.lines]
        total = f"| **sum** | {format_bytes(size)} | **{ledger.total}** |"
        tables.append(
            "\n".join([f"**{spec.name}**\n", "| part | class | bytes |", "| --- | --- | ---: |", *lines, total])
        )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=". ".join(sentences),
        metadata={
            "measured_bytes": sum(measured.values()),
            "allowed_bytes": sum(allowances.values()),
            "ledger": dg.MetadataValue.md("\n\n".join(tables)),
        },
    )
