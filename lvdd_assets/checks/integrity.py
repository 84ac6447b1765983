"""Whether what was read is the dataset: how much of each class was lost to files that cannot be used.

What can be used is decided in `distill.video`; here it is only judged.
"""

import dagster as dg

from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import markdown_table
from lvdd_assets.partitions import class_keys_of_run, split_key

_MAX_SHOWN = 200
_MAX_NAMED = 3


@dg.asset_check(
    asset="raw_clips",
    name="videos_are_usable",
    blocking=True,
    description=(
        "Every video file that was found gave a clip. Warns when some did not, and stops the run when a class lost "
        "more than the registry's max_lost_share. Files that the publisher lists and that are absent do not count."
    ),
)
def videos_are_usable(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    """Warns of lost files, fails where a class lost too many."""
    catalog = pipeline.workspace.catalog()
    store = ZarrStore(pipeline.workspace.data_root, "raw_clips")
    rows, excluded, failed = [], [], []
    num_found = num_excluded = num_missing = 0
    for key in class_keys_of_run(context, catalog):
        commit = store.commit_of(key)
        if commit is None:
            continue
        metrics = commit.metrics
        allowed = catalog.dataset(split_key(key)[0]).max_lost_share
        num_found += metrics["num_found"]
        num_excluded += metrics["num_excluded"]
        num_missing += metrics["num_missing"]
        if metrics["num_excluded"] == metrics["num_missing"] == 0:
            continue
        lost = metrics["num_excluded"] / max(1, metrics["num_found"])
        rows.append(
            {
                "class": key,
                "found": metrics["num_found"],
                "excluded": metrics["num_excluded"],
                "lost": f"{lost:.1%}",
                "allowed": f"{allowed:.1%}",
                "missing": metrics["num_missing"],
            }
        )
        excluded += [{"class": key, **row} for row in metrics["excluded"]]
        if lost > allowed:
            failed.append(key)
    description = f"{num_found - num_excluded} of {num_found} video files gave clips"
    if num_missing:
        description += f"; {num_missing} more are listed by the publisher and absent"
    if excluded:
        named = [f"{row['file']}: {row['reason']}" for row in excluded[:_MAX_NAMED]]
        left = num_excluded - len(named)
        description += f"; left out: {'; '.join(named)}" + (f"; and {left} more" if left else "")
    if failed:
        description += (
            f". Lost more than the allowed share: {', '.join(failed)}. Mend or remove the files, or raise "
            "max_lost_share in the registry (lvdd distill: --max-lost-share)"
        )
    return dg.AssetCheckResult(
        passed=num_excluded == 0,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "num_found": num_found,
            "num_excluded": num_excluded,
            "num_missing": num_missing,
            "classes": dg.MetadataValue.md(markdown_table(rows[:_MAX_SHOWN])),
            "excluded": dg.MetadataValue.md(markdown_table(excluded[:_MAX_SHOWN])),
        },
    )
