"""The one place where everything is wired: assets, checks, jobs and the pipeline they share."""

import dagster as dg

from lvdd_assets import automation, jobs
from lvdd_assets.assets import dpp_subsets, eval_report, hosvd_cores, latents, quantized_vae, raw_clips, release
from lvdd_assets.checks import decoder_fidelity, integrity, storage_budget
from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.catalog import Budget, Catalog
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import markdown_table
from lvdd_assets.resources import Workspace, workspace_from_environment

_SPENDING = ("hosvd_cores", "release")
_MOST_TAGS = 10
# In the order in which they depend on each other.
_ASSET_MODULES = (raw_clips, latents, dpp_subsets, hosvd_cores, quantized_vae, release, eval_report)


def build_pipeline(workspace: Workspace) -> Pipeline:
    """The chain of all steps over a workspace."""
    return Pipeline(workspace, tuple(module.STEP for module in _ASSET_MODULES))


def _with_budgets(spec: dg.AssetSpec, catalog: Catalog) -> dg.AssetSpec:
    """What each dataset may take, on the pages of the assets that spend it, and as tags to search by."""
    if spec.key.to_user_string() not in _SPENDING:
        return spec
    budgets = {dataset.name: _budget(dataset.budget) for dataset in catalog.datasets}
    rows = [{"dataset": name, "budget": text} for name, text in budgets.items()]
    tags = {f"budget/{name}": text.replace(" ", "") for name, text in list(budgets.items())[:_MOST_TAGS]}
    return spec.merge_attributes(metadata={"budgets": dg.MetadataValue.md(markdown_table(rows))}, tags=tags)


def _budget(budget: Budget) -> str:
    return format_bytes(budget.num_bytes) if budget.num_bytes is not None else f"IPC {budget.ipc}"


def build_definitions() -> dg.Definitions:
    """All definitions over the workspace that the environment names."""
    workspace = workspace_from_environment()
    catalog = workspace.catalog()
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: _with_budgets(spec.replace_attributes(automation_condition=automation.WHEN_STALE), catalog),
            [getattr(module, module.STEP.name) for module in _ASSET_MODULES],
        ),
        asset_checks=[
            integrity.videos_are_usable,
            storage_budget.classes_fit_their_share,
            decoder_fidelity.decoder_keeps_its_quality,
            storage_budget.release_fits_its_budget,
        ],
        jobs=[*automation.JOBS, jobs.distill_demo, jobs.paper_tables],
        sensors=list(automation.SENSORS),
        schedules=list(automation.SCHEDULES),
        resources={"pipeline": build_pipeline(workspace)},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
