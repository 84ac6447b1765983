"""The demo's clips: deterministic, resumable, and about motion: one frame says little, two say nearly all."""

import json

import numpy as np
import pytest

from lvdd_assets.distill import demo
from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.demo import MOTIONS, render_clip, render_dataset
from lvdd_assets.distill.video import read_clips

# Source frames that the demo's own shape (8 frames, stride 3) reads.
WINDOW = slice(1, 23, 3)
CHANCE = 1 / len(MOTIONS)


def poses(frames_THWC):
    """The light shape's pose from image moments: [..., 5], x, y, log area, cos 2θ, sin 2θ."""
    luma = frames_THWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    weight = np.clip(luma - 0.42, 0, 0.1) + 1e-6
    y, x = np.indices(luma.shape[-2:])
    mass = weight.sum(axis=(-2, -1))

    def mean(values):
        return (weight * values).sum(axis=(-2, -1)) / mass

    centre_x, centre_y = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - centre_x**2, mean(y * y) - centre_y**2, mean(x * y) - centre_x * centre_y
    spread = np.hypot(xx - yy, 2 * xy) + 1e-6
    return np.stack([centre_x, centre_y, np.log(mass), (xx - yy) / spread, 2 * xy / spread], axis=-1)


def quadratic(features):
    """All features, their squares and products."""
    rows, columns = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, rows] * features[:, columns]], axis=1)


def ridge_accuracy(train, train_labels, test, test_labels):
    """Accuracy of a one-against-all ridge classifier on standardised features."""
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = ((features - mean) / std for features in (train, test))
    train, test = (np.concatenate([features, np.ones((len(features), 1))], axis=1) for features in (train, test))
    targets = np.eye(len(MOTIONS))[train_labels] - CHANCE
    weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ targets)
    return np.mean((test @ weights).argmax(axis=1) == test_labels)


def nearest_accuracy(train, train_labels, test, test_labels):
    """Accuracy of the nearest neighbour."""
    distances = np.square(train).sum(axis=1) - 2 * test @ train.T
    return np.mean(train_labels[distances.argmin(axis=1)] == test_labels)


def test_clips_are_what_they_say():
    for motion in MOTIONS:
        frames = render_clip(motion, seed=3)
        assert frames.shape == (24, 64, 64, 3)
        assert frames.dtype == np.uint8
        assert frames.std() > 15
        np.testing.assert_array_equal(frames, render_clip(motion, seed=3))
        assert not np.array_equal(frames, render_clip(motion, seed=4))
    assert list(MOTIONS) == sorted(set(MOTIONS))
    assert len(MOTIONS) == 8


def test_unknown_motion():
    with pytest.raises(ValueError, match=r"unknown motion 'jump': expected one of grow, move_down"):
        render_clip("jump", seed=0)


def test_rendering_does_not_touch_global_randomness():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    render_clip("grow", seed=0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("motion", MOTIONS)
def test_paths_pass_the_middle_pose_in_the_middle(motion):
    """The path is odd about the middle of the clip: no motion shifts the middle pose, or the mean one."""
    for seed in range(20):
        path = demo._draw_path(np.random.default_rng(seed), motion)
        np.testing.assert_allclose(path, -path[:, ::-1], atol=1e-5)
        end = path[:, -1] * 2
        expected = np.array(demo._DIRECTIONS[motion])
        large = np.abs(end) > [15, 15, np.pi / 2, np.log(1.7)]
        np.testing.assert_array_equal(large, expected != 0)
        assert np.all(np.sign(end)[expected != 0] == expected[expected != 0])


@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_seen_in_the_pixels(motion):
    """Median over 24 clips of what the shape does within the window that is read: far, and in the right direction."""
    pose = np.stack([poses(render_clip(motion, seed=seed)[WINDOW]) for seed in range(24)])
    theta = np.unwrap(np.arctan2(pose[..., 4], pose[..., 3]), axis=1) / 2
    # The mass grows with the square of the size.
    done = np.stack(
        [pose[:, -1, 0] - pose[:, 0, 0], pose[:, -1, 1] - pose[:, 0, 1], theta[:, -1] - theta[:, 0]], axis=1
    )
    done = np.append(np.median(done, axis=0), np.median(pose[:, -1, 2] - pose[:, 0, 2]) / 2)
    least = np.array([13, 13, np.pi / 3, np.log(1.5)])
    for value, bound, direction in zip(done, least, demo._DIRECTIONS[motion], strict=True):
        if direction:
            assert value * direction > bound
        else:
            assert abs(value) < bound / 3


@pytest.fixture(scope="module")
def clips():
    """60 training and 30 test clips of each motion, as the window is read: uint8 [2 splits], labels."""

    def render(first, count):
        frames = [render_clip(motion, seed=first + index)[WINDOW] for motion in MOTIONS for index in range(count)]
        return np.stack(frames), np.repeat(np.arange(len(MOTIONS)), count)

    return *render(0, 60), *render(10_000, 30)


def highest_by_chance(num_trials, chance, *, sigmas=3.1):
    """What a guesser with that chance stays under in 999 of 1,000 cases (normal approximation of the binomial)."""
    return chance + sigmas * np.sqrt(chance * (1 - chance) / num_trials)


@pytest.mark.slow
def test_one_frame_says_little_and_motion_says_all(clips):
    """Held-out clips, the same classifier each time: only what it is given differs.

    The middle pose is drawn alike for all motions, so 240 independent test clips must stay within chance. Frames from
    anywhere in the clip may tell one in five: what moves is nearer the rim, and what grows or shrinks is smaller or
    larger, at both ends of its way.
    """
    train, train_labels, test, test_labels = clips
    train_poses, test_poses = poses(train), poses(test)
    rng = np.random.default_rng(0)

    def judge(choose_train, choose_test):
        return ridge_accuracy(quadratic(choose_train), train_labels, quadratic(choose_test), test_labels)

    middle = judge(train_poses[:, 4], test_poses[:, 4])
    assert middle < highest_by_chance(len(test), CHANCE)

    at_train, at_test = rng.integers(0, 8, len(train)), rng.integers(0, 8, len(test))
    anywhere = judge(train_poses[np.arange(len(train)), at_train], test_poses[np.arange(len(test)), at_test])
    assert anywhere < highest_by_chance(len(test), 0.2)

    # Looks alone: the nearest picture, eight pixels wide, of the middle of the clip.
    small_train, small_test = (
        split[:, 4].reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(len(split), -1) for split in (train, test)
    )
    looks = nearest_accuracy(small_train, train_labels, small_test, test_labels)
    assert looks < highest_by_chance(len(test), CHANCE)

    both_ends = judge(train_poses[:, [0, -1]].reshape(len(train), -1), test_poses[:, [0, -1]].reshape(len(test), -1))
    assert both_ends > 0.7


def test_dataset_is_written_read_and_left_alone(tmp_path):
    steps = []
    assert render_dataset(tmp_path, num_train=2, num_test=1, progress=lambda *step: steps.append(step)) == 24
    assert steps == [(done, 24) for done in range(1, 25)]
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4"))
    assert files[0] == "test/grow/grow_000.mp4"
    assert len(files) == 24
    clip = read_clips(tmp_path / files[0], ClipShape(8, 3, 64), Sampling())[0]
    assert (clip.window.stride, clip.num_source_frames) == (3, 24)
    assert len({(tmp_path / name).read_bytes() for name in files}) == 24

    (tmp_path / files[0]).write_bytes(b"my own")
    (tmp_path / files[1]).unlink()
    assert render_dataset(tmp_path, num_train=2, num_test=1) == 0
    assert (tmp_path / files[0]).read_bytes() == b"my own"
    assert not (tmp_path / files[1]).exists()


def test_files_hold_the_rendered_clips(tmp_path):
    """What is read back is what was drawn, but for H.264's loss; the same seed gives the same files anywhere."""
    for folder in ("a", "b"):
        render_dataset(tmp_path / folder, num_train=1, num_test=1, seed=5)
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.mp4"))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    seed = int(np.random.SeedSequence([5, 0, 0]).generate_state(1)[0])
    drawn = render_clip("spin_left", seed=seed).transpose(0, 3, 1, 2)
    read = read_clips(tmp_path / "a/train/spin_left/spin_left_000.mp4", ClipShape(24, 1, 64), Sampling())[0].frames_TCHW
    error = np.square(drawn.astype(float) - read).mean()
    assert 10 * np.log10(255**2 / error) > 28


def test_killed_render_resumes(tmp_path):
    class KilledError(Exception):
        pass

    def kill(done, total):
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        render_dataset(tmp_path, num_train=1, num_test=1, progress=kill)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert len(before) == 5
    assert render_dataset(tmp_path, num_train=1, num_test=1) == 11
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_render_anew_but_spare_other_files(tmp_path):
    render_dataset(tmp_path, num_train=2, num_test=1)
    first = (tmp_path / "train/grow/grow_000.mp4").read_bytes()
    mine = tmp_path / "train/grow/mine.mp4"
    mine.write_bytes(b"my own")
    assert render_dataset(tmp_path, num_train=1, num_test=1, seed=1) == 16
    assert (tmp_path / "train/grow/grow_000.mp4").read_bytes() != first
    assert not (tmp_path / "train/grow/grow_001.mp4").exists()
    assert mine.read_bytes() == b"my own"


def test_unreadable_marker_counts_as_none(tmp_path):
    render_dataset(tmp_path, num_train=1, num_test=1)
    (tmp_path / ".demo.json").write_text("{")
    assert render_dataset(tmp_path, num_train=1, num_test=1) == 16
    assert json.loads((tmp_path / ".demo.json").read_text())["num_train"] == 1


def test_refuses_empty_splits(tmp_path):
    with pytest.raises(ValueError, match="num_test = 0"):
        render_dataset(tmp_path, num_train=1, num_test=0)
