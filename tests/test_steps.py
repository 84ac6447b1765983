"""A step's code version follows the source of all that decides its result, and nobody can forget that."""

from pathlib import Path

import pytest

from lvdd_assets.definitions import build_pipeline
from lvdd_assets.distill import source_code
from lvdd_assets.distill.commits import ReplacedError
from lvdd_assets.distill.source_code import reached_from
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.resources import workspace_from_environment
from lvdd_assets.steps import NO_PART_IN_RESULTS, Step, some
from tests.counting_chain import STEPS as COUNTING_STEPS
from tests.counting_chain import make_pipeline, replace_step, run

STEPS = build_pipeline(workspace_from_environment()).steps

# A few of the modules that hold each step's algorithm. They are found by following imports; this says that it works.
ALGORITHM = {
    "raw_clips": ("containers", "video", "sampling", "ingestion"),
    "latents": ("vae", "latent_decoders", "encoding", "tiny_video"),
    "dpp_subsets": ("selection", "coresets", "dpp", "spectra", "kernels", "features"),
    "hosvd_cores": ("tucker", "rotations", "coefficient_coding", "float_coding", "class_coding", "codec"),
    "quantized_vae": ("quantization", "weight_rounding", "decoder_quantization", "int8_arithmetic"),
    "release": ("budget", "allocation", "filling", "soft_labels", "release_parts", "release_files", "release"),
    "eval_report": ("networks", "training", "evaluation", "comparison", "report", "report_text", "report_plots"),
}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_algorithm_is_found_and_the_bookkeeping_is_not(step: Step) -> None:
    found = set(reached_from(step.module, without=NO_PART_IN_RESULTS))
    assert {step.module, *(f"lvdd_assets.distill.{name}" for name in ALGORITHM[step.name])} <= found
    assert not found & NO_PART_IN_RESULTS


def test_what_has_no_part_in_results_is_imported_by_some_step() -> None:
    """A name that is not: it was renamed or is no longer needed, and stands for nothing."""
    reached = {name for step in STEPS for name in reached_from(step.module)}
    assert reached >= NO_PART_IN_RESULTS


@pytest.mark.parametrize("name", ["spectra", "kernels"])
def test_a_change_deep_below_changes_the_version_of_those_that_use_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samplers' eigenvalues decide which clips are taken, not how clips are read or encoded."""
    before = {step.name: _version(step) for step in STEPS}
    read = source_code._read
    changed = f"lvdd_assets.distill.{name}"

    def read_changed(module: str) -> tuple[str, frozenset[str]]:
        text, imported = read(module)
        return text + ("changed" if module == changed else ""), imported

    monkeypatch.setattr(source_code, "_read", read_changed)
    after = {step.name: _version(step) for step in STEPS}
    differ = {name for name in before if before[name] != after[name]}
    assert "dpp_subsets" in differ
    assert not differ & {"raw_clips", "latents"}


def _version(step: Step) -> str:
    return replace_step(step).code_version  # a copy: a step remembers its version


def test_a_changed_template_changes_the_version(tmp_path: Path) -> None:
    template = tmp_path / "page.html.j2"
    template.write_text("<p>{{ accuracy }}</p>")
    step = replace_step(COUNTING_STEPS[0], templates=(template,))
    before = step.code_version
    template.write_text("<b>{{ accuracy }}</b>")
    assert _version(step) != before
    assert next(step for step in STEPS if step.name == "eval_report").templates


def test_code_versions_are_of_the_source_and_differ() -> None:
    versions = [step.code_version for step in STEPS]
    assert len(set(versions)) == len(versions)
    assert all(len(version) == 12 for version in versions)


def test_a_task_opens_only_what_its_fingerprint_names(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run(pipeline, "a")
    task = next(one.task for one in pipeline.plan("set") if one.step.name == "b")
    assert task.open("a").read("value")[0] == 1
    with ZarrStore(pipeline.workspace.data_root, "a").write("set/x", "another", settings={}, inputs={}) as out:
        out.metrics = {}
    with pytest.raises(ReplacedError, match="a set/x was replaced by another run while b set/x was made"):
        task.open("a")


def test_long_lists_are_cut_with_their_number() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([*"abcde"]) == "a, b, c and 2 more"
