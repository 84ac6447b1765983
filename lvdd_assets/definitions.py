"""The one place where everything is wired: assets, checks, jobs and the pipeline they share."""

import dagster as dg

from lvdd_assets import automation, jobs
from lvdd_assets.assets import dpp_subsets, eval_report, hosvd_cores, latents, quantized_vae, raw_clips, release
from lvdd_assets.checks import decoder_fidelity, integrity, storage_budget
from lvdd_assets.incremental import Pipeline
from lvdd_assets.resources import Workspace, workspace_from_environment

# In the order in which they depend on each other.
_ASSET_MODULES = (raw_clips, latents, dpp_subsets, hosvd_cores, quantized_vae, release, eval_report)


def build_pipeline(workspace: Workspace) -> Pipeline:
    """The chain of all steps over a workspace."""
    return Pipeline(workspace, tuple(module.STEP for module in _ASSET_MODULES))


def build_definitions() -> dg.Definitions:
    """All definitions over the workspace that the environment names."""
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=automation.WHEN_STALE),
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
        resources={"pipeline": build_pipeline(workspace_from_environment())},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
