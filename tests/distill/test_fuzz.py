"""Real files, cut, flipped and spliced: clips or a reason, within a time and a memory that are known before."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.sandbox import Sandbox, SandboxError
from lvdd_assets.distill.video import Clip, read_clips
from tests.distill.films import encode, noisy_frames, numbered_frames

SECONDS = 30.0
MEMORY_BYTES = 3 * 2**30
SHAPE = ClipShape(8, 2, 24)
KINDS: dict[str, dict[str, object]] = {
    "index behind.mp4": {},
    "index in front.mp4": {"container_options": {"movflags": "faststart"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "6"}},
    "hevc.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "xvid.avi": {"codec": "mpeg4", "options": {"bf": "2", "b": "400000"}},
    "jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "yuv444p16le"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "dvd.mpg": {"codec": "mpeg2video", "container": "mpeg", "options": {"bf": "2"}},
    "broadcast.mpg": {"container": "mpegts"},
    "studio.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
}
EXTREMES = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x01", b"\xff" * 8]


def read(path: Path) -> list[Clip]:
    """What a child does with a file."""
    return read_clips(path, SHAPE, Sampling("random", clips_per_video=2), name="a")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    frames = np.concatenate([numbered_frames(24, 64), noisy_frames(6, 64, 64)])
    return {name: encode(folder / name, frames, **options).read_bytes() for name, options in KINDS.items()}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(read, seconds=SECONDS, memory_bytes=MEMORY_BYTES) as sandbox:
        yield sandbox


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, list[tuple[str, float, float, object]]]:
    """The name of a film, and what is done to its bytes, places as shares of its length."""
    # Most of what decides over sizes and times lies at both ends.
    place = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.9, 1))
    kind = draw(st.sampled_from(["cut", "flip", "splice", "zero", "drop", "repeat", "extreme"]))
    one = st.tuples(
        st.just(kind) | st.sampled_from(["flip", "extreme", "splice"]),
        place,
        place,
        st.sampled_from(list(KINDS)) if kind == "splice" else st.sampled_from(EXTREMES),
    )
    return draw(st.sampled_from(list(KINDS))), draw(st.lists(one, min_size=1, max_size=6))


def damage(films: dict[str, bytes], name: str, steps: list[tuple[str, float, float, object]]) -> bytes:
    data = bytearray(films[name])
    for kind, first, second, extra in steps:
        at, to = sorted((int(first * len(data)), int(second * len(data))))
        match kind:
            case "cut":
                del data[at:]
            case "flip":
                for index in range(at, min(at + 4, len(data))):
                    data[index] ^= 1 << (to % 8)
            case "splice":
                other = films[extra] if isinstance(extra, str) else films[name]
                data[at:to] = other[at : to + 100]
            case "zero":
                data[at:to] = bytes(to - at)
            case "drop":
                del data[at : min(to, at + 200)]
            case "repeat":
                data[at:at] = data[at:to]
            case "extreme":
                assert isinstance(extra, bytes | str)
                value = extra if isinstance(extra, bytes) else b"\xff\xff\xff\xff"
                data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=damages())
def test_damaged_files_give_clips_or_a_reason(
    films: dict[str, bytes], sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory, case: tuple
) -> None:
    name, steps = case
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damage(films, name, steps))
    start = time.monotonic()
    ((_, result),) = sandbox.map([path])
    assert time.monotonic() - start < SECONDS + 10
    if isinstance(result, list):
        for clip in result:
            assert clip.frames_TCHW.shape == (8, 3, 24, 24)
            assert clip.frames_TCHW.dtype == np.uint8
    else:
        assert isinstance(result, ValueError)
        assert str(result)
        assert "\n" not in str(result)
        # A crash, a hang or too much memory costs this file, and its reason says so; any other error is a slip of ours.
        assert not isinstance(result, SandboxError) or not str(result).split(":")[0].endswith("Error")


def test_undamaged_films_are_read(films: dict[str, bytes], sandbox: Sandbox, tmp_path: Path) -> None:
    for name, data in films.items():
        (tmp_path / name).write_bytes(data)
    for path, result in sandbox.map([tmp_path / name for name in films]):
        assert isinstance(result, list), f"{path.name}: {result}"
        assert [len(clip.frames_TCHW) for clip in result] == [8, 8]
        assert result[0].num_source_frames == 30, path.name
