import dataclasses
import re

import pytest

from lvdd_assets.distill.report_text import duration, spread, summary_table, verdict
from tests.distill.report_examples import USUAL, make_many_classes, make_report, make_rich, make_row

VERDICTS = {
    "usual": (
        make_report(full=[46, 44], release=[40, 36], video=[4, 2]),
        "155 kB instead of 20.0 MB: trains to 88.0 % top-1, 93 % of full data's 95.0 %. Plain video (AV1) (150 kB): "
        "53.0 %, 35.0 points less. Top-1 on 100 test clips, mean of 2 seeds; chance is 50.0 %.",
    ),
    "video is better": (
        make_report(full=[46], release=[20], video=[44]),
        "155 kB instead of 20.0 MB: trains to 70.0 % top-1, 73 % of full data's 96.0 %. Plain video (AV1) (150 kB): "
        "94.0 %, 24.0 points more: plain video is better here. Top-1 on 100 test clips, one seed; chance is "
        "50.0 %.",
    ),
    "within the noise": (
        make_report(full=[46], release=[40], video=[42]),
        "Plain video (AV1) (150 kB): 92.0 %, 2.0 points more, which is within the noise of 100 test clips.",
    ),
    "the same": (make_report(full=[46], release=[40], video=[40]), "(150 kB): 90.0 %, the same."),
    "at chance": (
        make_report(full=[46], release=[3]),
        "trains to 53.0 % top-1, which 100 test clips cannot tell from chance (50.0 %). Top-1 on",
    ),
    "release above full": (make_report(full=[20], release=[44]), "94.0 % top-1, more than full data's 70.0 %."),
    "release like full": (make_report(full=[43], release=[44]), "94.0 % top-1, no less than full data's 93.0 %."),
    "no smaller than full": (
        make_report(
            full=[46],
            release=[40],
            rows=(make_row("full data", [46], "full", 100_000), make_row("this release", [40], "release", 155_000)),
        ),
        "155 kB, not less than the full data's 100 kB: trains to 90.0 % top-1, 94 % of full data's 96.0 %.",
    ),
}


@pytest.mark.parametrize("case", list(VERDICTS))
def test_the_verdict_is_honest_in_every_order_of_results(case: str) -> None:
    data, expected = VERDICTS[case]
    assert expected in verdict(data)


def test_the_terminals_table_has_bytes_classes_and_accuracies() -> None:
    text = summary_table(USUAL)
    lines = text.splitlines()
    assert lines[0] == (
        "demo: 155 kB of 200 kB allowed (77.5 %): decoder 100 kB, cores 50.0 kB, labels 500 B, metadata 4.50 kB"
    )
    assert re.search(r"^this release +20 +155 kB +88\.0 ± 2\.8 % +100\.0 ± 0\.0 %$", text, re.MULTILINE)
    assert re.search(r"^chance +50\.0 % +100\.0 %$", text, re.MULTILINE)
    assert re.search(r"^move_left +30\.0 kB +76\.0 %$", text, re.MULTILINE)
    assert verdict(USUAL) == lines[-1]
    table = [line for line in lines if line.startswith(("full data", "this release", "plain video"))]
    assert len({len(line) for line in table}) == 1


def test_the_verdict_names_the_best_subset_in_as_many_bytes() -> None:
    text = "Best of 5 subsets, k-means, AV1 (153 kB): 82.0 %, 6.0 points less, which is within the noise of 100 test"
    assert text in verdict(make_rich())
    rows = (*USUAL.rows, make_row("random, AV1", [50, 50], "subset", 150_000))
    data = dataclasses.replace(USUAL, rows=rows)
    assert "Random, AV1 (150 kB): 100.0 %, 12.0 points more: the subset is better here." in verdict(data)


@pytest.mark.parametrize(
    ("hits", "stored_bytes", "told"),
    [([50, 50], 150_000, True), ([50, 50], 156_000, False), ([38, 38], 150_000, False), ([1, 2], 150_000, False)],
    ids=["better", "better with more bytes", "the same", "worse"],
)
def test_another_recipe_is_told_of_where_it_beats_the_release(hits: list[int], stored_bytes: int, told: bool) -> None:
    rows = (*USUAL.rows, make_row("paper recipe", hits, "recipe", stored_bytes))
    text = verdict(dataclasses.replace(USUAL, rows=rows))
    assert ("Paper recipe (150 kB): 100.0 %, 12.0 points more: it is better here." in text) is told
    assert ("Paper recipe" in text) is told


def test_a_report_by_top_5_speaks_of_top_5() -> None:
    data = dataclasses.replace(make_many_classes(50), metric="top5")
    assert "trains to 100.0 % top-5, no less than full data's 100.0 %." in verdict(data)
    assert verdict(data).endswith("Top-5 on 200 test clips, one seed; chance is 10.0 %.")


def test_the_terminals_table_says_what_was_not_run() -> None:
    assert "\n\nk-center, H.264: not run: no clip fits in 2.50 kB\n\n" in summary_table(make_rich())
    assert "not run" not in summary_table(USUAL)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3597, "59 min 57 s"),
        (3599, "1 h 0 min"),
        (4320, "1 h 12 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_seed_has_no_spread() -> None:
    assert spread(0.5, 0.0, 1) == "50.0 %"
    assert spread(0.5, 0.0123, 3) == "50.0 ± 1.2 %"
