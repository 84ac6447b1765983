"""The 50 classes of the benchmark, and what they add up to."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError
from lvdd_assets.distill.layouts import miniucf
from tests.distill.layouts.conftest import MakeSpec


def test_the_list_adds_up_to_the_literature_s_counts() -> None:
    counts = miniucf.class_counts()
    assert len(counts) == 50
    assert sum(train for train, _ in counts.values()) == 4662
    assert sum(test for _, test in counts.values()) == 1861
    assert miniucf.EXPECTED["official-1"] == (4662, 1861)


def test_only_its_classes_are_there(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec("miniucf", "official-1")
    assert miniucf.class_names(spec) == ()
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (tmp_path / "videos" / "Diving").mkdir(parents=True)
    (tmp_path / "videos" / "Diving" / "v_Diving_g08_c01.avi").touch()
    names = [*miniucf.class_counts(), "Archery"]
    (lists / "classInd.txt").write_text("".join(f"{label} {name}\n" for label, name in enumerate(names, 1)))
    label = names.index("Diving") + 1
    (lists / "trainlist01.txt").write_text(f"Diving/v_Diving_g08_c01.avi {label}\nArchery/v_Archery_g08_c01.avi 51\n")
    (lists / "testlist01.txt").write_text("Diving/v_Diving_g01_c01.avi\n")
    assert len(miniucf.class_names(spec)) == 50
    listing = miniucf.list_class(spec, "Diving")
    assert [clip.name for clip in listing.clips] == ["Diving/v_Diving_g08_c01.avi"]
    assert listing.missing == ("v_Diving_g01_c01.avi",)
    with pytest.raises(CatalogError, match="'Archery' is none of MiniUCF's 50"):
        miniucf.list_class(spec, "Archery")
