"""`dataset_card`: a header that YAML reads, facts of the release, nothing that a stranger's names could forge."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lvdd_assets.distill.dataset_card import dataset_card, license_of
from lvdd_assets.distill.release import Release, load_release

GOLDEN = Path(__file__).parent / "golden" / "release-v4.zarr.zip"


@pytest.fixture(scope="module")
def release() -> Release:
    return load_release(GOLDEN)


def _split(card: str) -> tuple[dict[str, object], str]:
    before, header, body = card.split("---\n", 2)
    assert before == ""
    return yaml.safe_load(header), body


def test_header_and_facts(release: Release) -> None:
    header, body = _split(dataset_card(release, pixels="As pixels.", configuration={"configs": [{"a": 1}]}))
    assert header["license"] == "unknown"
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["video-classification"]
    assert header["configs"] == [{"a": 1}]
    assert f"| bytes of the release | {release.stored_bytes} |" in body
    assert release.sha256 in body
    assert "| provenance: made | by version 4 |" in body
    for label, (name, count) in enumerate(zip(release.class_names, release.class_counts, strict=True)):
        assert f"| {label} | {name} | {count} |" in body


def test_the_licence_is_the_registered_one_else_the_publishers_terms_else_unknown(release: Release) -> None:
    assert license_of(replace(release, name="ucf101")).startswith("UCF101")
    registered = replace(release, name="ucf101", provenance={"license": "cc-by-4.0"})
    assert license_of(registered) == "cc-by-4.0"
    assert _split(dataset_card(registered, pixels=""))[0]["license"] == "cc-by-4.0"
    header, body = _split(dataset_card(replace(release, provenance={"license": "Mine, ask me"}), pixels=""))
    assert (header["license"], header["license_name"]) == ("other", "Mine, ask me")
    assert "Mine, ask me" in body


def test_how_it_was_distilled_is_said_by_recipe(release: Release) -> None:
    texts = {
        recipe: _split(dataset_card(replace(release, provenance={"recipe": recipe}), pixels=""))[1].splitlines()[5]
        for recipe in ("tight", "paper", "codec", "auto", "of the future")
    }
    assert len(set(texts.values())) == 5
    assert "2504.17132" in texts["paper"]


def test_names_of_strangers_stay_in_their_cells(release: Release) -> None:
    names = ("a | b", "<script>alert(1)</script>", "---\u2028license: mit")
    header, body = _split(
        dataset_card(replace(release, class_names=names, name='x" \\', provenance={"a": {"b": "|"}}), pixels="")
    )
    assert header["pretty_name"] == 'x" \\, distilled'
    assert header["license"] == "unknown"
    assert r"| 0 | a \| b | 2 |" in body
    assert "<script" not in body.replace(r"\<script", "")
    assert r"| provenance: a.b | \| |" in body
