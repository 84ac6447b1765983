"""Files to clips: the right frames, upright, in the right shape and colours, whatever the container."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from lvdd_assets.distill import video
from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.containers import VideoError
from lvdd_assets.distill.demo import render_clip
from lvdd_assets.distill.sampling import Window
from lvdd_assets.distill.video import Clip, read_clips, write_clip
from tests.distill.films import encode, noisy_frames, numbered_frames, numbers, patch_display_matrix

SHAPE = ClipShape(frames=8, stride=3, size=32)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
# Two rows of three patches.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], np.uint8)


def read_one(path: Path, shape: ClipShape = SHAPE, sampling: Sampling | None = None) -> Clip:
    """The only clip of a file."""
    (clip,) = read_clips(path, shape, sampling or Sampling(), name=path.name)
    return clip


def patches(height: int = 64, width: int = 96, num_frames: int = 2) -> NDArray[np.uint8]:
    picture = COLOURS.reshape(2, 3, 3).repeat(height // 2, 0).repeat(width // 3, 1)
    return np.broadcast_to(picture, (num_frames, *picture.shape))


def seen_patches(frames_TCHW: NDArray[np.uint8], columns: tuple[float, ...]) -> NDArray[np.int64]:
    """The colours of both rows at these shares of the width, int [rows · columns, 3]."""
    picture = frames_TCHW[0].transpose(1, 2, 0).astype(int)
    size = len(picture)
    return np.array([picture[int(row * size), int(column * size)] for row in (0.25, 0.75) for column in columns])


# ---- which frames -------------------------------------------------------------------------------------------------


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    path = tmp_path / "numbered.mp4"
    write_clip(path, numbered_frames(24), fps=12)
    return path


def test_reads_the_centre_window(numbered: Path) -> None:
    clip = read_one(numbered)
    assert clip.frames_TCHW.shape == (8, 3, 32, 32)
    assert clip.frames_TCHW.dtype == np.uint8
    # 22 of 24 frames: one is left over on each side.
    assert numbers(clip.frames_TCHW) == list(range(1, 23, 3))
    assert (clip.window.start, clip.window.stride, clip.num_source_frames) == (1, 3, 24)


@pytest.mark.parametrize(
    ("num_frames", "stride", "expected_stride", "first"),
    [(22, 3, 3, 0), (21, 3, 2, 3), (8, 3, 1, 0), (9, 1, 1, 0), (30, 4, 4, 0), (29, 4, 4, 0), (28, 4, 3, 3)],
)
def test_short_files_reduce_the_stride_and_say_so(
    tmp_path: Path, num_frames: int, stride: int, expected_stride: int, first: int
) -> None:
    path = tmp_path / "short.mp4"
    write_clip(path, numbered_frames(num_frames), fps=12)
    clip = read_one(path, ClipShape(8, stride, 32))
    assert clip.window.stride == expected_stride
    assert numbers(clip.frames_TCHW) == [first + expected_stride * step for step in range(8)]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 7])
def test_fewer_frames_than_the_clip_are_spread_over_it_and_counted(tmp_path: Path, num_frames: int) -> None:
    path = tmp_path / "short.mp4"
    write_clip(path, numbered_frames(num_frames), fps=12)
    clip = read_one(path)
    assert numbers(clip.frames_TCHW) == [step * num_frames // 8 for step in range(8)]
    assert clip.window.num_repeated == 8 - num_frames


def test_one_frame_clip_is_the_middle(numbered: Path) -> None:
    assert numbers(read_one(numbered, ClipShape(1, 5, 32)).frames_TCHW) == [11]


CONTAINERS = {
    "x264 mp4": ("a.mp4", {}),
    "x264 mp4, b frames": ("a.mp4", {"options": {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}}),
    "x264 mp4, open GOPs": ("a.mp4", {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}}),
    "x264 mp4, key frames only": ("a.mp4", {"options": {"g": "1"}}),
    "x264 mp4, fragments": (
        "a.mp4",
        {"options": {"g": "12"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "x264 mkv": ("a.mkv", {"options": {"g": "12"}}),
    "x264 avi": ("a.avi", {"options": {"g": "12", "bf": "0"}}),
    "x264 mpegts": ("a.mpg", {"options": {"g": "12"}, "container": "mpegts"}),
    "x265 mp4, open GOPs": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}}),
    "vp9 webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "12", "crf": "5", "b": "0"}}),
    "mpeg4 avi": ("a.avi", {"codec": "mpeg4", "options": {"g": "12", "qmin": "1", "q": "1"}}),
    "mpeg4 avi, b frames": ("a.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "b": "4000000"}}),
    "mpeg2 program stream": (
        "a.mpg",
        {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "4000000"}, "container": "mpeg"},
    ),
    "mjpeg avi": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "color_range": ColorRange.JPEG}),
    "prores mov": ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling("random", 5, 4)], ids=["center", "random"])
def test_every_container_gives_the_frames_that_were_put_in(tmp_path: Path, name: str, sampling: Sampling) -> None:
    """A clip's frames are those of the window that it names, found by seeking or not; the last and the first too."""
    file_name, options = CONTAINERS[name]
    path = encode(tmp_path / file_name, numbered_frames(120, 64), **options)  # type: ignore[arg-type]
    clips = read_clips(path, SHAPE, sampling, name="x")
    assert len(clips) == sampling.clips_per_video
    for clip in clips:
        start = clip.window.start
        expected = np.arange(start, start + 22, 3)
        assert clip.num_source_frames == 120
        np.testing.assert_array_equal(clip.window.frames, expected)
        np.testing.assert_array_equal(numbers(clip.frames_TCHW), expected)
    whole = read_one(path, ClipShape(120, 1, 32))
    assert numbers(whole.frames_TCHW) == list(range(120))
    for clip in clips:  # to the last bit what a decoder gives that leaves nothing out
        np.testing.assert_array_equal(clip.frames_TCHW, whole.frames_TCHW[clip.window.frames])


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the key frame before the first wanted frame to the last wanted one."""
    path = encode(tmp_path / "a.mp4", numbered_frames(120), options={"g": "10", "bf": "0"})
    decoded = []
    decode = video.decode_packet

    def counting(packet: object) -> object:
        frames = decode(packet)  # type: ignore[arg-type]
        decoded.extend(frame.pts for frame in frames)
        return frames

    monkeypatch.setattr(video, "decode_packet", counting)
    clip = read_one(path, ClipShape(4, 1, 32))
    assert numbers(clip.frames_TCHW) == [58, 59, 60, 61]
    assert len(decoded) <= 12
    decoded.clear()
    far_apart = read_one(path, ClipShape(3, 40, 32))  # three key frames, three seeks
    assert numbers(far_apart.frames_TCHW) == [19, 59, 99]
    assert len(decoded) <= 30


def test_variable_frame_rates_go_by_time(tmp_path: Path) -> None:
    """Twenty frames at 25 a second, then ten that stay four times as long: a stride means the same time everywhere."""
    times = [*range(0, 800, 40), *range(800, 2400, 160)]
    path = encode(tmp_path / "a.mp4", numbered_frames(30), times_ms=times)
    clip = read_one(path, ClipShape(8, 8, 32))
    shown = [clip.window.start + 8 * step for step in range(8)]
    expected = [max(index for index, time in enumerate(times) if time <= slot * 40 + 20) for slot in shown]
    assert numbers(clip.frames_TCHW) == expected
    assert clip.window.num_repeated == 0
    dense = read_one(path, ClipShape(8, 1, 32), Sampling())
    assert dense.window.num_repeated > 0  # within the slow part a frame stays: said, not hidden


def test_milliseconds_of_matroska_are_a_constant_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_frames(100), fps=30)
    clip = read_one(path, ClipShape(16, 4, 32))
    assert numbers(clip.frames_TCHW) == list(range(19, 80, 4))
    assert clip.window.num_repeated == 0


def test_time_stamps_that_span_years_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_frames(4), times_ms=[0, 1, 2, 2_000_000_000])
    with pytest.raises(VideoError, match="time stamps span"):
        read_one(path, ClipShape(2, 1, 32))


# ---- which pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 96), (96, 32), (64, 192)], ids=["wide", "tall", "scaled"])
def test_crops_the_centre(tmp_path: Path, height: int, width: int) -> None:
    """Three squares in a row, the middle one white: only white is left."""
    frames = np.zeros((8, height, width, 3), np.uint8)
    short = min(height, width)
    if width > height:
        frames[:, :, short : 2 * short] = 255
    else:
        frames[:, short : 2 * short] = 255
    path = tmp_path / "wide.mp4"
    write_clip(path, frames, fps=12, crf=1)
    clip = read_one(path, ClipShape(8, 1, 32))
    assert clip.frames_TCHW[:, :, 2:-2, 2:-2].min() > 240


def test_shrinking_averages_instead_of_aliasing(tmp_path: Path) -> None:
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 255
    frames = np.repeat(np.repeat(checks[None, :, :, None], 8, axis=0), 3, axis=3).astype(np.uint8)
    path = tmp_path / "checks.mp4"
    write_clip(path, frames, fps=12, crf=1)
    clip = read_one(path, ClipShape(8, 1, 32))
    assert np.abs(clip.frames_TCHW.astype(int) - 127.5).max() < 12


def test_enlarging_keeps_a_ramp_a_ramp(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(20, 230, 16).astype(np.uint8)[None, None, :, None], (8, 16, 16, 3))
    path = encode(tmp_path / "small.mp4", ramp, pix_fmt="yuv444p")
    row = read_one(path, ClipShape(8, 1, 64)).frames_TCHW[0, 0, 32].astype(int)
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() <= 8  # pixels that were only repeated would jump by 14


@pytest.mark.parametrize(("height", "width"), [(33, 47), (17, 250), (251, 17), (35, 35)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = np.full((8, height, width, 3), 100, np.uint8)
    frames[:, :, width // 2 :] = 200
    path = encode(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="yuv420p")
    clip = read_one(path, ClipShape(8, 1, 32)).frames_TCHW.astype(int)
    assert np.abs(clip[..., :, :13] - 100).max() <= 2
    assert np.abs(clip[..., :, 19:] - 200).max() <= 2


@pytest.mark.parametrize(
    ("pixel_aspect", "columns"),
    # 64 × 96: square pixels show the middle column and half of each neighbour; pixels half as wide show all three.
    [(Fraction(1), (0.05, 0.5, 0.95)), (Fraction(2, 3), (0.1, 0.5, 0.9)), (Fraction(2), (0.05, 0.5, 0.95))],
    ids=str,
)
def test_pixel_aspect_is_honoured(tmp_path: Path, pixel_aspect: Fraction, columns: tuple[float, ...]) -> None:
    path = encode(tmp_path / "a.mp4", patches(), pix_fmt="yuv444p", pixel_aspect=pixel_aspect)
    picture = read_one(path, ClipShape(2, 1, 96)).frames_TCHW[0].transpose(1, 2, 0).astype(int)
    # Where the middle column of patches begins and ends, in the first row: red | green | blue.
    green = np.flatnonzero((picture[20, :, 1] > 128) & (picture[20, :, 0] < 128) & (picture[20, :, 2] < 128))
    visible = 64 / (96 * float(pixel_aspect))  # share of the width that the square shows
    expected = min(1, (1 / 3) / min(1, visible)) * 96
    assert abs(len(green) - expected) <= 2
    assert abs((green[0] + green[-1]) / 2 - 47.5) <= 1


TURNS = {
    "upright": ((1, 0, 0, 1), lambda picture: picture),
    "a quarter to the right": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "half": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "a quarter to the left": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
def test_rotation_is_honoured(tmp_path: Path, name: str) -> None:
    """The matrix of the track header: x' = a·x + c·y, y' = b·x + d·y (ISO 14496-12, 8.3.2)."""
    matrix, turn = TURNS[name]
    path = encode(tmp_path / "a.mp4", patches(), pix_fmt="yuv444p")
    plain = read_one(path, ClipShape(2, 1, 64)).frames_TCHW[0].transpose(1, 2, 0)
    patch_display_matrix(path, matrix)
    turned = read_one(path, ClipShape(2, 1, 64)).frames_TCHW[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(turned, turn(plain))
    assert len({picture[1].tobytes() for picture in (plain, np.rot90(plain), np.rot90(plain, 2))}) == 3


def test_other_turns_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", patches())
    patch_display_matrix(path, (1, 1, -1, 1))
    with pytest.raises(VideoError, match="only quarter turns"):
        read_one(path)


FORMATS = {
    "4:2:0": ("a.mp4", "libx264", "yuv420p"),
    "4:2:2": ("a.mp4", "libx264", "yuv422p"),
    "4:4:4": ("a.mp4", "libx264", "yuv444p"),
    "4:2:0, 10 bits": ("a.mp4", "libx264", "yuv420p10le"),
    "4:2:2, 10 bits": ("a.mp4", "libx264", "yuv422p10le"),
    "HEVC, 12 bits": ("a.mkv", "libx265", "yuv420p12le"),
    "VP9": ("a.webm", "libvpx-vp9", "yuv420p"),
    "4:4:4, 16 bits": ("a.mkv", "ffv1", "yuv444p16le"),
    "with alpha": ("a.mkv", "ffv1", "yuva444p"),
}


@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709], ids=["601", "709"])
@pytest.mark.parametrize("name", FORMATS)
def test_declared_colours_come_back(tmp_path: Path, name: str, matrix: Colorspace, color_range: ColorRange) -> None:
    """Patches of saturated colours: no swapped planes, no wrong matrix, no wrong range. 8 bits of chroma cost 2 levels,
    a wrong matrix some 20, a wrong range some 13."""
    file_name, codec, pix_fmt = FORMATS[name]
    path = encode(
        tmp_path / file_name,
        patches(64, 96)[:, :, 16:80],
        codec=codec,
        pix_fmt=pix_fmt,
        matrix=matrix,
        color_range=color_range,
        tagged=True,
    )
    clip = read_one(path, ClipShape(2, 1, 64))
    assert np.abs(seen_patches(clip.frames_TCHW, (0.12, 0.5, 0.88)) - COLOURS).max() <= 3


@pytest.mark.parametrize(
    ("file_name", "codec", "pix_fmt"),
    [("a.mov", "png", "rgb24"), ("a.mov", "qtrle", "rgb24"), ("a.avi", "rawvideo", "bgr24")],
)
def test_rgb_files_are_as_they_are(tmp_path: Path, file_name: str, codec: str, pix_fmt: str) -> None:
    frames = patches(64, 96)[:, :, 16:80]
    path = encode(tmp_path / file_name, frames, codec=codec, pix_fmt=pix_fmt)
    np.testing.assert_array_equal(read_one(path, ClipShape(2, 1, 64)).frames_TCHW, frames.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("height", "matrix"), [(480, Colorspace.ITU601), (720, Colorspace.ITU709)], ids=["480 lines", "720 lines"]
)
def test_undeclared_colours_are_what_players_assume(tmp_path: Path, height: int, matrix: Colorspace) -> None:
    path = encode(tmp_path / "a.mp4", patches(height, height // 2 * 3), matrix=matrix)
    clip = read_one(path, ClipShape(2, 1, 96))
    assert np.abs(seen_patches(clip.frames_TCHW, (0.1, 0.5, 0.9)) - COLOURS).max() <= 3


@pytest.mark.parametrize(("pix_fmt", "codec"), [("gray", "ffv1"), ("gray10le", "ffv1"), ("gray", "libx264")])
def test_grey_files_are_grey(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    levels = np.linspace(0, 255, 6).astype(np.uint8)
    frames = np.broadcast_to(levels.repeat(16)[None, None, :, None], (2, 96, 96, 3))
    path = encode(tmp_path / "a.mkv", frames, codec=codec, pix_fmt=pix_fmt, color_range=ColorRange.JPEG, tagged=True)
    clip = read_one(path, ClipShape(2, 1, 96)).frames_TCHW.astype(int)
    assert np.abs(clip[:, :, 48, 8::16] - levels).max() <= 2
    assert (clip[:, 0] == clip[:, 1]).all()
    assert (clip[:, 0] == clip[:, 2]).all()


def test_matrices_that_would_be_read_wrongly_are_refused(tmp_path: Path) -> None:
    options = {"x264-params": "colormatrix=YCgCo"}
    path = encode(tmp_path / "a.mp4", patches(), pix_fmt="yuv444p", options=options)
    with pytest.raises(VideoError, match="YCgCo, which are not read"):
        read_one(path)


def test_a_strip_is_refused_before_it_is_blown_up(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", np.zeros((2, 2, 4096, 3), np.uint8), codec="ffv1")
    with pytest.raises(VideoError, match="times as wide as high, at most 64"):
        read_one(path, ClipShape(2, 1, 112))


# ---- damage and resources -----------------------------------------------------------------------------------------


def test_damage_within_the_wanted_frames_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, noisy_frames(), fps=12)
    data = bytearray(path.read_bytes())
    data[2000:20000] = bytes(18000)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged") as caught:
        read_one(path)
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


def test_packets_without_a_picture_are_no_frames(tmp_path: Path) -> None:
    """A stream of which ten packets say "nothing new": the clip is made of the pictures that there are."""
    import av

    path = encode(tmp_path / "a.avi", numbered_frames(60), codec="mpeg4", options={"g": "1", "b": "4000000"})
    holed = tmp_path / "holed.avi"
    with av.open(path) as reader, av.open(holed, "w") as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for index, packet in enumerate(item for item in reader.demux(video=0) if item.size):
            # A picture that is not coded, as XviD writes for a frame that it drops (ISO 14496-2, vop_coded = 0).
            again = packet if not 20 <= index < 30 else av.Packet(b"\x00\x00\x01\xb6\x50\x4f")
            if again is not packet:
                again.pts, again.dts, again.time_base = packet.pts, packet.dts, packet.time_base
            again.stream = copy
            writer.mux(again)
    clip = read_one(holed, ClipShape(40, 1, 32))
    assert clip.num_source_frames == 50
    assert numbers(clip.frames_TCHW) == [*range(5, 20), *range(30, 55)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_files_are_closed(tmp_path: Path, numbered: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(numbered.read_bytes()[:-300])

    def read_all() -> None:
        for path in (numbered, cut, tmp_path):
            try:
                read_one(path)
            except VideoError:
                continue

    read_all()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        read_all()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_reading_is_the_same_again_and_in_another_place(numbered: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / numbered.name
    copy.parent.mkdir()
    copy.write_bytes(numbered.read_bytes())
    first, again, other = (read_one(path).frames_TCHW for path in (numbered, numbered, copy))
    assert first.tobytes() == again.tobytes() == other.tobytes()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_original_files_of_ucf101(tmp_path: Path) -> None:
    """XviD in AVI, with B frames in packed packets: as many frames as a decoder gives from start to end, and those."""
    import av

    paths = sorted((SHARED / "ucf101_sample").rglob("*.avi"))
    assert len(paths) == 15
    for path in paths[::5]:
        with av.open(path) as container:
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        clip = read_one(path, ClipShape(16, 4, 240))
        assert clip.num_source_frames == len(frames)
        assert clip.window.stride == 4 or len(frames) < 61
        luma = np.tensordot([0.299, 0.587, 0.114], clip.frames_TCHW.astype(float), axes=(0, 1))
        for number, picture in zip(clip.window.frames, luma, strict=True):
            errors = {
                other: np.abs(frames[other][:, 40:280].astype(float) - picture).mean()
                for other in range(max(0, number - 3), min(len(frames), number + 4))
            }
            assert errors[number] == min(errors.values())


# ---- writing ------------------------------------------------------------------------------------------------------


def test_writing_is_deterministic_and_leaves_no_partial_file(tmp_path: Path) -> None:
    """Again and again: x264 left to itself fails this for some clips as small as these."""
    clips = [render_clip("grow", seed=seed) for seed in range(12)]
    path, seen = tmp_path / "clip.mp4", []
    for frames in clips * 3:
        write_clip(path, frames, fps=12)
        seen.append(path.read_bytes())
    assert seen[:12] == seen[12:24] == seen[24:]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_lower_crf_is_larger_and_better(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    errors, sizes = [], []
    for crf in (5, 25, 45):
        path = tmp_path / f"{crf}.mp4"
        write_clip(path, frames, fps=12, crf=crf)
        decoded = read_one(path, ClipShape(8, 1, 32)).frames_TCHW.transpose(0, 2, 3, 1)
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
def test_write_refuses(tmp_path: Path, shape: tuple[int, ...], dtype: Callable[..., object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / "clip.mp4", np.zeros(shape, dtype), fps=12)  # type: ignore[call-overload]
    assert list(tmp_path.iterdir()) == []


def test_clip_checks_itself() -> None:
    window = Window(np.arange(8), start=0, stride=1)
    with pytest.raises(ValueError, match=r"expected uint8 \[T, 3, H, W\]"):
        Clip(np.zeros((8, 32, 32, 3), np.uint8), window, num_source_frames=8)
    with pytest.raises(ValueError, match=r"8 frames for .* of 7 frames"):
        Clip(np.zeros((8, 3, 32, 32), np.uint8), window, num_source_frames=7)
