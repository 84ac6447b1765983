"""Which frames make a clip: the promises of each protocol, for videos of any length and any timing."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.sampling import choose_windows, count_slots, frame_slots

SHAPES = st.builds(ClipShape, frames=st.integers(1, 20), stride=st.integers(1, 6), size=st.just(8))
SAMPLINGS = st.builds(
    Sampling, st.sampled_from(Sampling.PROTOCOLS), seed=st.integers(0, 99), clips_per_video=st.integers(1, 6)
)


@given(num_slots=st.integers(1, 400), shape=SHAPES, sampling=SAMPLINGS, name=st.text(max_size=8))
def test_every_window_is_as_promised(num_slots: int, shape: ClipShape, sampling: Sampling, name: str) -> None:
    windows = choose_windows(np.arange(num_slots), shape, sampling, name=name)
    longest_stride = shape.stride if shape.frames == 1 else min(shape.stride, (num_slots - 1) // (shape.frames - 1))
    span = (shape.frames - 1) * longest_stride + 1
    num_starts = num_slots - span + 1 if longest_stride else 1
    assert len(windows) == min(sampling.clips_per_video, num_starts)
    assert len({window.start for window in windows}) == len(windows)
    for window in windows:
        assert len(window.frames) == shape.frames
        assert window.stride == longest_stride
        assert 0 <= window.frames[0] <= window.frames[-1] < num_slots
        if longest_stride:
            np.testing.assert_array_equal(window.frames, window.start + longest_stride * np.arange(shape.frames))
            assert window.num_repeated == 0
        else:
            expected = [step * num_slots // shape.frames for step in range(shape.frames)]
            assert window.frames.tolist() == expected
            assert window.num_repeated == shape.frames - num_slots
            assert set(expected) == set(range(num_slots))  # none of the few frames is lost


@given(stays=st.lists(st.integers(1, 5), min_size=1, max_size=80), shape=SHAPES, sampling=SAMPLINGS)
def test_repeated_frames_are_the_equal_neighbours(stays: list[int], shape: ClipShape, sampling: Sampling) -> None:
    """Slots of a variable rate show a frame several times; a window shows what its slots show."""
    slots = np.repeat(np.arange(len(stays)), stays)
    for window in choose_windows(slots, shape, sampling, name="x"):
        frames = window.frames.tolist()
        assert len(frames) == shape.frames
        assert frames == sorted(frames)
        assert window.num_repeated == sum(a == b for a, b in itertools.pairwise(frames))
        if window.stride:
            assert frames == [slots[window.start + window.stride * step] for step in range(shape.frames)]
        else:
            assert frames == [slots[step * len(slots) // shape.frames] for step in range(shape.frames)]


@given(num_slots=st.integers(61, 400))
def test_the_centre_window_is_in_the_middle(num_slots: int) -> None:
    (window,) = choose_windows(np.arange(num_slots), ClipShape(16, 4, 8), Sampling(), name="")
    before, behind = window.frames[0], num_slots - 1 - window.frames[-1]
    assert behind - before in (0, 1)


@given(num_slots=st.integers(61, 2000), count=st.integers(1, 12))
def test_several_centre_windows_are_spread_evenly(num_slots: int, count: int) -> None:
    windows = choose_windows(np.arange(num_slots), ClipShape(16, 4, 8), Sampling(clips_per_video=count), name="")
    starts = [window.start for window in windows]
    assert starts == sorted(starts)
    assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else True
    assert abs(starts[0] - (num_slots - 61 - starts[-1])) <= 1


def test_random_windows_of_a_video_are_distinct_and_cover_it() -> None:
    sampling = Sampling("random", clips_per_video=40)
    windows = choose_windows(np.arange(100), ClipShape(16, 4, 8), sampling, name="v.avi")
    assert [window.start for window in windows] == list(range(40))


def test_random_starts_are_uniform() -> None:
    """Pearson's chi-square over 40 starts and 8,000 names; the bound is passed by chance once in 100,000 times."""
    starts = [
        choose_windows(np.arange(100), ClipShape(16, 4, 8), Sampling("random"), name=f"v_{index}.avi")[0].start
        for index in range(8000)
    ]
    counts = np.bincount(starts, minlength=40)
    assert len(counts) == 40
    assert ((counts - 200) ** 2 / 200).sum() < 88


def test_a_start_depends_on_the_seed_and_the_name_alone() -> None:
    def starts(seed: int, *names: str) -> list[int]:
        return [
            choose_windows(np.arange(5000), ClipShape(16, 4, 8), Sampling("random", seed), name=name)[0].start
            for name in names
        ]

    names = [f"run/{index}.mp4" for index in range(30)]
    assert starts(0, *names) == starts(0, *names) == starts(0, *reversed(names))[::-1]
    assert len(set(starts(0, *names))) > 25
    assert sum(a == b for a, b in zip(starts(0, *names), starts(1, *names), strict=True)) < 3
    # Never to change in silence: datasets would be other datasets.
    assert starts(0, "a.mp4", "v_Diving_g08_c01.avi", "日本語.webm") == GOLDEN


GOLDEN = [973, 252, 3002]


def test_starts_are_the_same_in_every_process() -> None:
    code = (
        "import numpy as np; from lvdd_assets.distill.catalog import ClipShape, Sampling;"
        "from lvdd_assets.distill.sampling import choose_windows;"
        "windows = choose_windows(np.arange(900), ClipShape(8, 2, 8), Sampling('random', 3, 5), name='x');"
        "print([window.start for window in windows])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    here = choose_windows(np.arange(900), ClipShape(8, 2, 8), Sampling("random", 3, 5), name="x")
    assert said == {f"{[window.start for window in here]}\n"}


# ---- from times to slots ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [10, 24, 25, 29.97, 30, 60, 1000 / 3])
def test_a_constant_rate_in_milliseconds_has_a_slot_a_frame(fps: float) -> None:
    """Matroska rounds time stamps to milliseconds."""
    times = np.round(np.arange(500) * 1000 / fps).astype(np.int64)
    np.testing.assert_array_equal(frame_slots(times), np.arange(500))


def test_a_frame_that_stays_fills_the_slots_of_its_time() -> None:
    times = np.array([0, 10, 20, 30, 70, 80, 90])
    assert frame_slots(times).tolist() == [0, 1, 2, 3, 3, 3, 3, 4, 5, 6]


@given(
    before=st.integers(3, 40),
    stays=st.integers(3, 20),
    behind=st.integers(3, 40),
    interval=st.sampled_from([1, 40, 3003]),
)
def test_a_frame_that_stays_k_intervals_fills_k_slots(before: int, stays: int, behind: int, interval: int) -> None:
    steps = [1] * before + [stays] + [1] * behind
    slots = frame_slots(np.cumsum([0, *steps]) * interval)
    assert slots.tolist() == np.repeat(np.arange(len(steps) + 1), [*steps, 1]).tolist()


def test_jitter_below_a_quarter_of_an_interval_changes_nothing_the_ends_included() -> None:
    for seed in range(20):
        jitter = np.random.default_rng(seed).integers(-9, 10, 300)
        np.testing.assert_array_equal(frame_slots(np.arange(300) * 40 + jitter), np.arange(300))


def test_jitter_changes_nothing_at_a_variable_rate_either() -> None:
    steps = [1] * 20 + [9] + [1] * 20
    even = np.cumsum([0, *steps]) * 40
    jitter = np.random.default_rng(0).integers(-8, 9, len(even))
    jitter[[0, 20, 21, -1]] = 0  # so that the mean interval is 40 exactly
    np.testing.assert_array_equal(frame_slots(even + jitter), frame_slots(even))


def test_jitter_of_the_first_frame_is_as_any_other() -> None:
    jitter = np.zeros(300, np.int64)
    jitter[[0, 10]] = 19, -19
    np.testing.assert_array_equal(frame_slots(np.arange(300) * 40 + jitter), np.arange(300))


def test_jitter_below_half_an_interval_changes_nothing() -> None:
    jitter = np.random.default_rng(0).integers(-19, 20, 300)
    jitter[[0, -1]] = 0
    np.testing.assert_array_equal(frame_slots(np.arange(300) * 40 + jitter), np.arange(300))


def test_one_long_pause_does_not_change_what_a_slot_is() -> None:
    times = np.concatenate([np.arange(50) * 40, 1_000_000 + np.arange(50) * 40])
    slots = frame_slots(times)
    assert len(slots) == count_slots(times) == 1_000_000 // 40 + 50
    assert slots[:50].tolist() == list(range(50))
    assert slots[-50:].tolist() == list(range(50, 100))
    assert set(slots[50:-50]) == {49}


def test_one_and_two_frames() -> None:
    assert frame_slots(np.array([7])).tolist() == [0]
    assert frame_slots(np.array([7, 900])).tolist() == [0, 1]


TIMES = st.lists(st.integers(1, 60), min_size=0, max_size=60).map(lambda steps: np.cumsum([0, *steps]))


@given(times=TIMES, shift=st.integers(-(10**12), 10**12), scale=st.sampled_from([1, 2, 512, 2**20]))
def test_slots_for_any_times(times: np.ndarray, shift: int, scale: int) -> None:
    slots = frame_slots(times)
    assert len(slots) == count_slots(times)
    assert (np.diff(slots) >= 0).all()
    assert 0 <= slots[0] <= slots[-1] < len(times)
    # The unit of time and where it begins mean nothing.
    np.testing.assert_array_equal(frame_slots(times * scale + shift), slots)


@pytest.mark.parametrize("steps", [(1, 1, 2), (2, 1, 1), (2, 2, 4), (4, 1, 3)], ids=str)
def test_the_unit_of_time_means_nothing_at_the_border_either(steps: tuple[int, ...]) -> None:
    """Frames exactly half an interval off an even grid, in the units of real files and with their first times."""
    times = np.cumsum([0, *steps])
    slots = frame_slots(times).tolist()
    for scale in (3, 7, 90, 1000, 1001, 3003):
        for shift in (0, 126_000, 2**33 - 1, 10**12 + 1):
            assert frame_slots(times * scale + shift).tolist() == slots, (scale, shift)
