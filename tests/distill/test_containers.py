"""What is opened at all: a short reason for every file that is no video, and no file that names others to read."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill import containers
from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.containers import VideoError, check_file, read_timeline
from lvdd_assets.distill.video import read_clips, write_clip
from tests.distill.films import encode, noisy_frames, numbered_frames, numbers

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def audio_only(path: Path) -> None:
    with av.open(path, "w", format="mp4") as writer:
        stream = writer.add_stream("aac", rate=44100, layout="mono")
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * index
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))


def cut_before_the_index(path: Path) -> None:
    """Our own files have their index at the end."""
    write_clip(path, noisy_frames(), fps=12)
    path.write_bytes(path.read_bytes()[:-400])


def cut_after_the_index(path: Path) -> None:
    """Files made for the web have it in front: the cut is then found by the index, not by the parser."""
    encode(path, noisy_frames(), container="mp4", container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-200])


def picture(path: Path) -> None:
    Image.fromarray(noisy_frames()[0]).save(path, format="JPEG")


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>" * 50), "not a video"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a video"),
    "folder": (lambda path: path.mkdir(), "a folder, not a file"),
    "absent": (lambda path: None, "no such file"),
    "audio": (audio_only, "no video stream"),
    "cut, index at the end": (cut_before_the_index, "cut off"),
    "cut, index in front": (cut_after_the_index, "truncated"),
    "pipe": (lambda path: os.mkfifo(path), "not a file"),
    "picture": (picture, "not a video of a known container"),
    "play list": (lambda path: path.write_text("ffconcat version 1.0\nfile other.mp4\n"), "not a video"),
    "HLS": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"), "not a video"),
    "SDP": (lambda path: path.write_text("v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), "not a video"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_give_a_short_reason(tmp_path: Path, name: str) -> None:
    make, message = BAD_FILES[name]
    path = tmp_path / "bad.mp4"
    write_clip(tmp_path / "other.mp4", noisy_frames(), fps=12)
    make(path)
    with pytest.raises(VideoError, match=message) as caught:
        read_clips(path, ClipShape(8, 1, 32), Sampling())
    assert len(str(caught.value)) < 100
    assert "\n" not in str(caught.value)


FILMS: dict[str, tuple[str, dict[str, object]]] = {
    "mp4": ("a.mp4", {}),
    "mp4, index in front": ("a.mp4", {"container_options": {"movflags": "faststart"}}),
    "avi": ("a.avi", {"codec": "mpeg4", "options": {"b": "2000000"}}),
    "mkv": ("a.mkv", {}),
    "webm": ("a.webm", {"codec": "libvpx-vp9"}),
}


@pytest.mark.parametrize("name", FILMS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    """Wherever a download broke off, also where a packet ends, the file is not taken for a shorter one."""
    file_name, options = FILMS[name]
    path = encode(tmp_path / file_name, noisy_frames(40), **options)  # type: ignore[arg-type]
    whole = path.read_bytes()
    assert read_timeline(path).num_frames == 40
    check_file(path)
    for share in np.linspace(0.01, 0.97, 49):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(VideoError):
            read_clips(path, ClipShape(8, 1, 32), Sampling())


@pytest.mark.parametrize("name", FILMS)
def test_bytes_behind_the_end_are_no_damage(tmp_path: Path, name: str) -> None:
    file_name, options = FILMS[name]
    path = encode(tmp_path / file_name, noisy_frames(10), **options)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes() + bytes(4096))
    check_file(path)
    assert read_timeline(path).num_frames == 10


def test_a_matroska_file_of_unknown_length_is_taken_as_it_is(tmp_path: Path) -> None:
    """What is written to a pipe cannot say how long it will be (RFC 8794, section 6.2)."""
    path = encode(tmp_path / "a.mkv", noisy_frames(10), container_options={"live": "1"})
    assert path.read_bytes()[:200].count(b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff") == 1
    check_file(path)
    assert read_timeline(path).num_frames == 10


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"RIFF\x64\x00\x00\x00AVI LIST", 99),  # 8 + 100, less what writers are known to miscount
        (b"RIFF\x64\x00\x00\x00WAVEfmt ", 0),
        (b"\x1a\x45\xdf\xa3\x82\x00\x00\x18\x53\x80\x67\x85", 12 + 5),
        (b"\x1a\x45\xdf\xa3\x82\x00\x00\x18\x53\x80\x67\x40\x05", 13 + 5),
        (b"\x1a\x45\xdf\xa3\x82\x00\x00\x18\x53\x80\x67\xff", 0),
        (b"\x1a\x45\xdf\xa3", 0),
        (b"\x1a\x45\xdf\xa3\x00", 0),
        (b"x", 0),
    ],
)
def test_declared_sizes(tmp_path: Path, data: bytes, expected: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert containers._declared_size(path) == expected


def test_frames_are_counted_by_packets_not_by_headers(tmp_path: Path) -> None:
    """A header that lies about the number of frames and the rate changes nothing."""
    path = encode(tmp_path / "a.avi", numbered_frames(30), codec="mpeg4", options={"b": "2000000"})
    data = bytearray(path.read_bytes())
    main = data.index(b"avih") + 8
    data[main + 16 : main + 20] = struct.pack("<I", 9999)
    stream = data.index(b"strh") + 8
    data[stream + 32 : stream + 36] = struct.pack("<I", 9999)
    path.write_bytes(data)
    assert read_timeline(path).num_frames == 30


def test_the_largest_number_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", numbered_frames(30))
    monkeypatch.setattr(containers, "MAX_FRAMES", 29)
    with pytest.raises(VideoError, match="more than 29 frames"):
        read_timeline(path)


def test_the_largest_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", numbered_frames(3))
    monkeypatch.setattr(containers, "MAX_PIXELS", 1023)
    with pytest.raises(VideoError, match="32×32 pixels, at most 1023 are decoded"):
        read_timeline(path)


def test_a_stream_that_grows_beyond_the_largest_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header's size is one thing; a later picture may be larger, and the decoder refuses it before it allocates."""
    jpeg = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
    small = encode(tmp_path / "small.avi", numbered_frames(20, 32), **jpeg)
    large = encode(tmp_path / "large.avi", numbered_frames(20, 256), **jpeg)
    path = tmp_path / "both.avi"
    with av.open(small) as first, av.open(large) as second, av.open(path, "w") as writer:
        stream = writer.add_stream_from_template(first.streams.video[0])
        packets = [packet for reader in (first, second) for packet in reader.demux(video=0) if packet.size]
        for index, packet in enumerate(packets):
            packet.pts = packet.dts = index
            packet.stream = stream
            writer.mux(packet)
    (clip,) = read_clips(path, ClipShape(30, 1, 32), Sampling())
    assert numbers(clip.frames_TCHW) == [*range(5, 20), *range(15)]
    monkeypatch.setattr(containers, "MAX_PIXELS", 128 * 128)
    with pytest.raises(VideoError, match="damaged: a packet cannot be decoded"):
        read_clips(path, ClipShape(30, 1, 32), Sampling())


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_no_real_file_is_refused() -> None:
    """Files of five sources and three writers: the checks have no false alarms."""
    paths = [path for path in sorted(SHARED.rglob("*")) if path.suffix in (".mp4", ".avi")]
    assert len(paths) > 400
    for path in paths:
        check_file(path)
        assert read_timeline(path).num_frames > 1
