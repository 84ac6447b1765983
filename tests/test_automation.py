"""The jobs cover the whole chain, each at its own level."""

from lvdd_assets.definitions import defs


def test_the_jobs_cover_the_chain() -> None:
    selected = {}
    for name in ("distill_classes", "release_dataset"):
        job = defs.resolve_job_def(name)
        selected[name] = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert selected == {
        "distill_classes": {"raw_clips", "latents", "dpp_subsets", "hosvd_cores"},
        "release_dataset": {"quantized_vae", "release", "eval_report"},
    }
