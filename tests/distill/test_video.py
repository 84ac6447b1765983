"""Files to clips: the right frames, the right crop, and a short reason for every file that is no clip."""

import os
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from lvdd_assets.distill import video
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.demo import render_clip
from lvdd_assets.distill.video import Clip, VideoError, read_clip, write_clip

SHAPE = ClipShape(frames=8, stride=3, size=32)


def numbered_frames(num_frames, height=32, width=32):
    """Frames that say their own number: grey level 8 + 8 × index (so they survive coding), uint8 [T, H, W, 3]."""
    levels = (8 + 8 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def numbers(frames_TCHW):
    """The numbers that `numbered_frames` wrote."""
    return np.round((frames_TCHW.mean(axis=(1, 2, 3)) - 8) / 8).astype(int).tolist()


@pytest.fixture
def numbered(tmp_path):
    path = tmp_path / "numbered.mp4"
    write_clip(path, numbered_frames(24), fps=12)
    return path


def test_reads_the_centre_window(numbered):
    clip = read_clip(numbered, SHAPE)
    assert clip.frames_TCHW.shape == (8, 3, 32, 32)
    assert clip.frames_TCHW.dtype == np.uint8
    # 22 of 24 frames: one is left over on each side.
    assert numbers(clip.frames_TCHW) == list(range(1, 23, 3))
    assert (clip.stride, clip.num_source_frames) == (3, 24)


@pytest.mark.parametrize(
    ("num_frames", "stride", "expected_stride", "first"),
    [(22, 3, 3, 0), (21, 3, 2, 3), (8, 3, 1, 0), (9, 1, 1, 0), (30, 4, 4, 0), (29, 4, 4, 0), (28, 4, 3, 3)],
)
def test_short_files_reduce_the_stride_and_say_so(tmp_path, num_frames, stride, expected_stride, first):
    path = tmp_path / "short.mp4"
    write_clip(path, numbered_frames(num_frames), fps=12)
    clip = read_clip(path, ClipShape(8, stride, 32))
    assert clip.stride == expected_stride
    assert numbers(clip.frames_TCHW) == [first + expected_stride * step for step in range(8)]


def test_too_few_frames(tmp_path):
    path = tmp_path / "short.mp4"
    write_clip(path, numbered_frames(7), fps=12)
    with pytest.raises(VideoError, match="7 frames, 8 needed"):
        read_clip(path, SHAPE)


def test_one_frame_clip_is_the_middle(numbered):
    assert numbers(read_clip(numbered, ClipShape(1, 5, 32)).frames_TCHW) == [11]


@pytest.mark.parametrize(("height", "width"), [(32, 96), (96, 32), (64, 192)], ids=["wide", "tall", "scaled"])
def test_crops_the_centre(tmp_path, height, width):
    """Three squares in a row, the middle one white: only white is left."""
    frames = np.zeros((8, height, width, 3), np.uint8)
    short = min(height, width)
    if width > height:
        frames[:, :, short : 2 * short] = 255
    else:
        frames[:, short : 2 * short] = 255
    path = tmp_path / "wide.mp4"
    write_clip(path, frames, fps=12, crf=1)
    clip = read_clip(path, ClipShape(8, 1, 32))
    assert clip.frames_TCHW[:, :, 2:-2, 2:-2].min() > 240


def test_shrinking_averages_instead_of_aliasing(tmp_path):
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 255
    frames = np.repeat(np.repeat(checks[None, :, :, None], 8, axis=0), 3, axis=3).astype(np.uint8)
    path = tmp_path / "checks.mp4"
    write_clip(path, frames, fps=12, crf=1)
    clip = read_clip(path, ClipShape(8, 1, 32))
    assert np.abs(clip.frames_TCHW.astype(int) - 127.5).max() < 12


def test_round_trip_keeps_colours(tmp_path):
    """Large patches of saturated colours come back: no swapped planes, no wrong matrix or range."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)
    frames = np.broadcast_to(np.repeat(colours, 32, axis=0)[None, None], (8, 64, 192, 3))
    path = tmp_path / "colours.mp4"
    write_clip(path, frames, fps=12, crf=1)
    with av.open(path) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    centres = decoded[32, 16::32].astype(int)
    assert np.abs(centres - colours.astype(int)).max() <= 6


def test_writing_is_deterministic_and_leaves_no_partial_file(tmp_path):
    """Again and again: x264 left to itself fails this for some clips as small as these."""
    clips = [render_clip("grow", seed=seed) for seed in range(12)]
    path, seen = tmp_path / "clip.mp4", []
    for frames in clips * 3:
        write_clip(path, frames, fps=12)
        seen.append(path.read_bytes())
    assert seen[:12] == seen[12:24] == seen[24:]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_lower_crf_is_larger_and_better(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    errors, sizes = [], []
    for crf in (5, 25, 45):
        path = tmp_path / f"{crf}.mp4"
        write_clip(path, frames, fps=12, crf=crf)
        decoded = read_clip(path, ClipShape(8, 1, 32)).frames_TCHW.transpose(0, 2, 3, 1)
        errors.append(np.square(decoded.astype(float) - frames).mean())
        sizes.append(path.stat().st_size)
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 33, 32, 3), np.uint8, "even sides, got 33×32"),
        ((8, 32, 32, 4), np.uint8, r"expected uint8 \[T, H, W, 3\]"),
        ((8, 32, 32, 3), np.float32, "got float32"),
        ((0, 32, 32, 3), np.uint8, "at least 1"),
    ],
)
def test_write_refuses(tmp_path, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / "clip.mp4", np.zeros(shape, dtype), fps=12)
    assert list(tmp_path.iterdir()) == []


def audio_only(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x00\x01" * 8000)


def truncated_before_index(path):
    """Our own files have their index at the end."""
    write_clip(path, noisy_frames(), fps=12)
    path.write_bytes(path.read_bytes()[:-400])


def truncated_after_index(path):
    """Files made for the web have it in front: the cut is then found by the index, not by the parser."""
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in noisy_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[:-200])


def zeros_inside(path):
    write_clip(path, noisy_frames(), fps=12)
    data = bytearray(path.read_bytes())
    data[2000:20000] = bytes(18000)
    path.write_bytes(data)


def noisy_frames():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)


BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>" * 50), "not a video"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a video"),
    "folder": (lambda path: path.mkdir(), "a folder, not a file"),
    "absent": (lambda path: None, "no such file"),
    "audio": (audio_only, "no video stream"),
    "cut, index at the end": (truncated_before_index, "cut off"),
    "cut, index in front": (truncated_after_index, "truncated"),
    "zeros inside": (zeros_inside, "damaged"),
    "pipe": (lambda path: os.mkfifo(path), "not a file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_give_a_short_reason(tmp_path, name):
    make, message = BAD_FILES[name]
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(VideoError, match=message) as caught:
        read_clip(path, SHAPE)
    assert len(str(caught.value)) < 100
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_files_are_closed(tmp_path, numbered):
    paths = [numbered]
    for name in ("audio", "cut, index in front", "zeros inside"):
        paths.append(tmp_path / f"{name}.mp4")
        BAD_FILES[name][0](paths[-1])

    def read_all():
        for path in paths:
            try:
                read_clip(path, SHAPE)
            except VideoError:
                continue

    read_all()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read_all()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_stops_after_the_last_frame(numbered, monkeypatch):
    """Only the frames up to the last one needed leave the decoder."""
    decoded = []
    iterate = video._iterate_frames

    def counting(path):
        for frame in iterate(path):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video, "_iterate_frames", counting)
    read_clip(numbered, ClipShape(4, 1, 32))  # frames 10 to 13 of 24
    assert len(decoded) == 14


def test_clip_checks_itself():
    with pytest.raises(ValueError, match=r"expected uint8 \[T, 3, H, W\]"):
        Clip(np.zeros((8, 32, 32, 3), np.uint8), stride=1, num_source_frames=8)
    with pytest.raises(ValueError, match="8 frames at stride 3 from 20 frames"):
        Clip(np.zeros((8, 3, 32, 32), np.uint8), stride=3, num_source_frames=20)
