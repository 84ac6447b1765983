"""A mark is what was written or nothing; a version's writer is known to live, to be dead, or not known."""

import json
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill import commits
from lvdd_assets.distill.commits import Commit, DamagedError, Stored, is_done_already, judge_mark, new_version, unseal

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TABLE = st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)


def _commit(**changes: object) -> Commit:
    values = {"fingerprint": "f", "settings": {"config": {"seed": 0}}, "version": new_version(), "code": "c"}
    return Commit(**{**values, **changes})  # type: ignore[arg-type]


@given(settings=TABLE, metrics=TABLE)
def test_a_mark_comes_back_through_json(settings: dict, metrics: dict) -> None:
    commit = _commit(settings=settings, metrics=metrics, files={"a": "0"}, chunks={"b": 3})
    assert unseal(json.loads(json.dumps(commit.sealed()))) == commit


@given(data=st.data())
def test_any_flipped_bit_of_a_mark_is_seen(data: st.DataObject) -> None:
    text = json.dumps(_commit(metrics={"psnr_db": 27.5, "names": ["é", "b"]}).sealed()).encode()
    place, bit = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(text)
    flipped[place] ^= 1 << bit
    try:
        mark = json.loads(flipped)
    except ValueError:
        return
    if mark != json.loads(text):  # a letter of \\u00e9 in capitals is the same value
        assert unseal(mark) is None


@pytest.mark.parametrize("mark", [None, [], "x", 3, {}, {"seal": "x"}, {"fingerprint": "f", "surprise": 1}])
def test_what_is_no_mark_counts_as_nothing(mark: object) -> None:
    assert unseal(mark) is None
    assert judge_mark(mark).commit is None
    assert judge_mark(mark).damage


def test_a_version_that_leads_elsewhere_is_no_version() -> None:
    """Of a damaged mark nothing is believed, least of all a folder to be removed."""
    for version in ("", "..", "../../etc", "v-1", "/", f"{new_version()}/..", 7):
        assert judge_mark({"version": version}).version == ""
    version = new_version()
    assert judge_mark({"version": version, "settings": {"config": {"seed": 5}}}) == Stored(
        None, "its commit mark is not what was written", {}, version
    )


def test_versions_never_repeat_and_name_their_writer() -> None:
    versions = {new_version() for _ in range(1000)}
    assert len(versions) == 1000
    assert all(commits.is_version(version) and commits.writer_lives(version) for version in versions)


def test_the_version_of_a_process_that_has_ended_has_no_writer() -> None:
    code = "from lvdd_assets.distill.commits import new_version; print(new_version(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    version = process.stdout.readline().strip()
    assert commits.writer_lives(version) is True
    process.kill()
    process.wait()
    assert commits.writer_lives(version) is False


def test_another_process_with_the_same_number_is_not_the_writer() -> None:
    parts = new_version().split("-")
    parts[4] = f"{int(parts[4], 16) - 1:x}"
    assert commits.writer_lives("-".join(parts)) is False


def test_a_machine_that_was_started_again_has_no_writers_of_before() -> None:
    parts = new_version().split("-")
    assert commits.writer_lives("-".join([*parts[:2], "0" * 6, *parts[3:]])) is False


def test_writers_on_other_machines_cannot_be_seen() -> None:
    parts = new_version().split("-")
    assert commits.writer_lives("-".join([parts[0], "0" * 8, *parts[2:]])) is None
    assert commits.writer_lives("anything") is None


def test_a_commit_of_another_run_is_told_from_the_one_before() -> None:
    old, new = _commit(), _commit()
    before = Stored(old, version=old.version)
    assert not is_done_already(before, before, "f")  # nobody else wrote: a forced run replaces what is fresh
    assert is_done_already(before, Stored(new, version=new.version), "f")
    assert is_done_already(Stored(), Stored(new, version=new.version), "f")
    assert not is_done_already(Stored(), Stored(new, version=new.version), "another")


def test_damage_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(DamagedError("latents", "demo/run", "latents/c/0 is gone")))
    assert (error.asset, error.key, error.damage) == ("latents", "demo/run", "latents/c/0 is gone")
    assert re.fullmatch("latents demo/run is damaged: latents/c/0 is gone", str(error))
