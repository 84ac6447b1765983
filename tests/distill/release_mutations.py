"""Real releases, taken apart, changed and put together again: what Hypothesis and the fuzzer feed the loader.

A file is changed in its parts (attributes, array headers, chunks), because a zip whose bytes are flipped mostly dies at
its CRC. An input is a whole file, or parts that are zipped with a right CRC; both are bytes, so that a fuzzer can keep
them. `check` is the promise: all that is in a file is read as it is announced, or refused as a ReleaseError.
"""

import contextlib
import io
import json
import random
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

from lvdd_assets.distill.class_coding import CodedClass, is_in_shared_basis
from lvdd_assets.distill.quantization import read_weights
from lvdd_assets.distill.release import Release, ReleaseError, ReleaseParts, load_release, pack, read_ledger

Parts = dict[str, bytes]
MutateBytes = Callable[[bytes, int], bytes]
"""Some bytes and the most that may come back → other bytes."""

GOLDEN = Path(__file__).parent / "golden"
_WHOLE, _PARTS = b"Z", b"P"
# Bytes up to which a class is decoded; more takes as long as it announces.
_MOST_DECODED = 1 << 20
_LONGEST = 1 << 14
_EXTREMES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 4, 5, 8, 16, 17, 255, 256, 65535, 65536, 2**31, 2**32, 2**63, 2**64, 10**12, 10**30, 10**400),
    *(0.0, 0.25, 1.5, 1e-320, 1e300, float("inf"), float("-inf"), float("nan"), None, True, False),
    *("", "0", "video", "hosvd-lzma", "zstd", "numcodecs.pickle", "../x", "\ud800", "\x1b[2J", "a" * 1000),
    *([], {}, [[]], [0] * 100, {"": None}),
)


def seeds() -> list[bytes]:
    """Inputs for each kind of class by itself, for several in one file, and for each version."""
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("release-v[134].zarr.zip"))]
    release = load_release(GOLDEN / "release-v3.zarr.zip")
    weights = read_weights(release.decoder_data, release.build_decoder(), release.scheme)
    for name, coded in zip(release.class_names, release.coded, strict=True):
        decoder = (release.decoder_spec, weights) if isinstance(coded, CodedClass) else (None, None)
        shared = release.shared if isinstance(coded, CodedClass) and is_in_shared_basis(coded) else None
        files.append(pack(ReleaseParts("one", release.shape, {name: coded}, *decoder, shared=shared)))
    return [_PARTS + _join(_take_apart(file)) for file in files] + [_WHOLE + files[0]]


def check(data: bytes) -> bool:
    """Reads all of an input; whether it was accepted.

    Raises:
        AssertionError, or what was raised: a promise is broken.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "a.zarr.zip"
        path.write_bytes(to_file(data))
        refusal = ""
        try:
            read_all(path)
        except ReleaseError as error:
            refusal = str(error)
        assert not refusal or refusal.startswith(str(path)), refusal
    return not refusal


def to_file(data: bytes) -> bytes:
    """The release file that an input stands for."""
    parts = _split(data[1:]) if data[:1] == _PARTS else None
    return data[1:] if parts is None else _zip(parts)


def read_all(path: Path) -> Release:
    """Opens a release and reads what it holds, classes up to a megabyte decoded.

    Raises:
        ReleaseError: what is promised of a damaged file.
        AssertionError: something is not as announced.
    """
    ledger = read_ledger(path)
    release = load_release(path)
    shape, starts = release.shape, np.cumsum([0, *(coded.num_clips for coded in release.coded)])
    assert ledger.total == path.stat().st_size == release.stored_bytes
    assert list(ledger.by_class()) == list(release.class_names)
    assert starts[-1] == release.num_clips == len(release.dataset())
    if release.has_soft_labels:
        assert release.soft_labels.shape == (release.num_clips, release.num_classes)
        np.testing.assert_allclose(release.soft_labels.sum(axis=1), 1, atol=1e-5)
    dataset = release.dataset()
    for label, coded in enumerate(release.coded[:16]):
        if coded.num_clips * shape.frames * 3 * shape.size**2 > _MOST_DECODED:
            continue
        if isinstance(coded, CodedClass) and coded.num_clips * np.prod(coded.mode_sizes) <= _MOST_DECODED // 4:
            latents = release.latents(label)
            assert (latents.shape, latents.dtype) == ((coded.num_clips, *coded.mode_sizes), np.float32)
            assert np.isfinite(latents).all()
        clip, got = dataset[int(starts[label + 1]) - 1]
        assert (tuple(clip.shape), got) == ((shape.frames, 3, shape.size, shape.size), label)
    return release


@contextlib.contextmanager
def memory_limit(num_bytes: int) -> Iterator[None]:
    """AssertionError where what is done within takes more memory than before by so much at any moment (Linux only)."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        yield
        return
    reset.write_text("5")  # the peak is counted from here
    before = _memory("VmRSS")
    yield
    more = _memory("VmHWM") - before
    assert more < num_bytes, f"{more} B more than before"


def _memory(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def mutate(data: bytes, rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """Another input, changed in one to three places."""
    parts = _split(data[1:]) if data[:1] == _PARTS else None
    if parts is None:
        return _WHOLE + mutate_bytes(data[1:], 1 << 16)
    for _ in range(rng.choice([1, 1, 2, 3])):
        change = rng.choice([_change_attributes] * 4 + [_change_class] * 4 + [_change_array] * 2 + _CHANGES)
        with contextlib.suppress(Exception):  # what is odd already cannot be changed in every way
            change(parts, rng, mutate_bytes)
    if rng.random() < 0.03:
        return _WHOLE + mutate_bytes(_zip(parts), 1 << 16)
    return _PARTS + _join(parts)


def mutate_bytes_plainly(rng: random.Random) -> MutateBytes:
    """A mutation of bytes for who has none of his own: flips, cuts, inserts, repeats, extremes."""

    def change(data: bytes, most: int) -> bytes:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 4])):
            at, other = rng.randrange(len(changed) + 1), rng.randrange(len(changed) + 1)
            extreme = rng.choice([b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\x00\x00\x01"])
            match rng.randrange(6):
                case 0 if changed:
                    changed[at % len(changed)] ^= 1 << rng.randrange(8)
                case 1:
                    changed[at : at + len(extreme)] = extreme
                case 2:
                    del changed[at:]
                case 3:
                    del changed[at : at + 1 + other % 8]
                case 4:
                    changed[at:at] = bytes(rng.randrange(256) for _ in range(1 + other % 4))
                case _:
                    changed[at:at] = changed[other : other + 32]
        return bytes(changed[:most])

    return change


def _change_attributes(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    _change_json(parts, "zarr.json", rng)


def _change_header(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    _change_json(parts, rng.choice([name for name in parts if name.endswith("/zarr.json")]), rng)


def _change_json(parts: Parts, name: str, rng: random.Random) -> None:
    content = json.loads(parts[name])
    holder, key = rng.choice(list(_places(content)))
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 2:
            other, place = rng.choice(list(_places(content)))
            holder[key] = json.loads(json.dumps(other[place]))
        case 3 if type(holder[key]) in (int, float):
            holder[key] = rng.choice(
                [holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000, [holder[key]]]
            )
        case _:
            holder[key] = rng.choice(_EXTREMES)
    parts[name] = json.dumps(content).encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a JSON value, as what holds it and its key."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def _change_class(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    """Other bytes of one class, or of the shared basis, with the table set right."""
    content = json.loads(parts["zarr.json"])
    rows, start = content["attributes"]["classes"], content["attributes"].get("basis", 0)
    data = parts["cores/c/0"]
    row = rng.choice(rows)
    start += sum(before[2] for before in rows[: rows.index(row)])
    changed = mutate_bytes(data[start : start + row[2]], _LONGEST)
    parts["cores/c/0"] = data[:start] + changed + data[start + row[2] :]
    row[2] = len(changed)
    parts["zarr.json"] = json.dumps(content).encode()
    _set_length(parts, "cores", len(parts["cores/c/0"]))


def _change_count(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    """Another number of clips, with labels to it."""
    content = json.loads(parts["zarr.json"])
    rows = content["attributes"]["classes"]
    rng.choice(rows)[1] = rng.choice([1, 2, 3, 4, 7, 100, 10_000])
    if sum(row[1] for row in rows) > 100_000:
        return
    labels = np.repeat(np.arange(len(rows), dtype=np.uint16), [row[1] for row in rows])
    parts["zarr.json"] = json.dumps(content).encode()
    parts["labels/c/0"] = Zstd().encode(labels.tobytes())
    _set_length(parts, "labels", len(labels))


def _change_array(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    """Other values of a packed array, packed again."""
    name = rng.choice([name for name in ("labels", "soft_labels", "decoder") if f"{name}/c/0" in parts])
    changed = mutate_bytes(Zstd().decode(parts[f"{name}/c/0"]), _LONGEST)
    parts[f"{name}/c/0"] = Zstd().encode(changed)
    if rng.random() < 0.7:
        _set_length(parts, name, len(changed) // (2 if name == "labels" else 1))


def _change_chunk(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    """Other bytes of a chunk as it lies in the file."""
    name = rng.choice([name for name in parts if name.endswith("/c/0")])
    parts[name] = mutate_bytes(parts[name], _LONGEST)
    if name == "cores/c/0":
        _set_length(parts, "cores", len(parts[name]))


def _change_entries(parts: Parts, rng: random.Random, mutate_bytes: MutateBytes) -> None:
    """An entry that is not there, or stands where another should."""
    first, second = rng.choice(list(parts)), rng.choice([*parts, "../x", "x/c/0", "encoder/c/0"])
    if rng.random() < 0.5:
        del parts[first]
    else:
        parts[second] = parts[first]


_CHANGES = [_change_header, _change_count, _change_chunk, _change_entries]


def _set_length(parts: Parts, name: str, length: int) -> None:
    header = json.loads(parts[f"{name}/zarr.json"])
    header["shape"] = header["chunk_grid"]["configuration"]["chunk_shape"] = [length]
    parts[f"{name}/zarr.json"] = json.dumps(header).encode()


def _take_apart(file: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _zip(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _join(parts: Parts) -> bytes:
    return b"".join(
        struct.pack("<BI", len(name.encode()), len(data)) + name.encode() + data for name, data in parts.items()
    )


def _split(joined: bytes) -> Parts | None:
    """What `_join` joined; None for anything else."""
    parts, start = {}, 0
    while start < len(joined):
        if len(joined) < start + 5:
            return None
        num_name, num_data = struct.unpack_from("<BI", joined, start)
        start += 5 + num_name
        if len(joined) < start + num_data:
            return None
        try:
            parts[joined[start - num_name : start].decode()] = joined[start : start + num_data]
        except UnicodeDecodeError:
            return None
        start += num_data
    return parts
