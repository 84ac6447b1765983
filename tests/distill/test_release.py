"""A release holds all that training needs, accounts for every byte, and refuses what is not one."""

import io
import json
import pickle
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numcodecs.zstd import Zstd
from torch.utils.data import DataLoader

import lvdd_assets
from lvdd_assets.distill import class_coding, release_files, soft_labels, tucker
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.quantization import dequantize, quantize_weights
from lvdd_assets.distill.release import Release, ReleaseError, ReleaseParts, load_release, pack, read_ledger
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.release_mutations import memory_limit

SHAPE = ClipShape(frames=4, stride=2, size=32)
COUNTS = {"jump high": 3, "läuft": 2}
SMALL_MEMORY = 32 * 2**20


@pytest.fixture(scope="module")
def parts() -> ReleaseParts:
    generator = np.random.default_rng(0)
    vae = load_autoencoder("embedded-2d")
    classes = {}
    for name, count in COUNTS.items():
        clips = generator.integers(0, 255, size=(count, 4, 3, 32, 32)).astype(np.uint8)
        result = tucker.decompose(vae.encode(clips))
        classes[name] = class_coding.ClassCoder(result).encode(0.25)
    weights = quantize_weights(vae.decoder())
    return ReleaseParts("videos", SHAPE, classes, vae.decoder_spec, weights, {"made": "in a test"})


@pytest.fixture
def path(parts: ReleaseParts, tmp_path: Path) -> Path:
    file = tmp_path / "videos.zarr.zip"
    file.write_bytes(pack(parts))
    return file


def test_the_public_face(path: Path) -> None:
    release = lvdd_assets.load_release(path)
    assert isinstance(release, lvdd_assets.Release)
    assert release.class_names == tuple(COUNTS)
    assert (release.num_classes, release.num_clips, release.name) == (2, 5, "videos")
    assert release.stored_bytes == path.stat().st_size
    assert release.provenance == {"made": "in a test"}
    assert release.shape == SHAPE


def test_the_dataset_yields_clips_and_labels(path: Path) -> None:
    dataset = load_release(str(path)).dataset()
    assert isinstance(dataset, torch.utils.data.Dataset)
    assert len(dataset) == 5
    clip, label = dataset[3]
    assert (clip.dtype, tuple(clip.shape), label) == (torch.uint8, (4, 3, 32, 32), 1)
    assert type(label) is int
    assert torch.equal(dataset[-2][0], clip)
    with pytest.raises(IndexError, match="index 5 of a release of 5"):
        dataset[5]
    clips, labels = next(iter(DataLoader(dataset, batch_size=5)))
    assert clips.shape == (5, 4, 3, 32, 32)
    assert labels.tolist() == [0, 0, 0, 1, 1]


def test_clips_are_what_decoder_and_cores_give(parts: ReleaseParts, path: Path) -> None:
    release = load_release(path)
    coded = parts.classes["läuft"]
    expected = release.build_decoder().decode(class_coding.decode(coded))
    np.testing.assert_array_equal(release.dataset()[4][0].numpy(), expected[1])


def test_the_dataset_survives_pickling_and_worker_processes(path: Path) -> None:
    dataset = load_release(path).dataset()
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0][0], dataset[0][0])


def test_ledger_lines_add_up_to_the_file(parts: ReleaseParts, path: Path) -> None:
    ledger = read_ledger(path)
    assert ledger.total == path.stat().st_size
    assert ledger.by_class() == {name: len(coded.data) for name, coded in parts.classes.items()}
    assert {line.part for line in ledger.lines} == {"decoder", "cores", "labels", "metadata"}
    table = load_release(path).ledger
    assert int(table["bytes"].sum()) == path.stat().st_size


def test_metadata_is_small(path: Path) -> None:
    metadata = next(line for line in read_ledger(path).lines if line.part == "metadata")
    assert metadata.num_bytes < 3000 + 60 * len(COUNTS)


def test_same_parts_same_bytes(parts: ReleaseParts) -> None:
    assert pack(parts) == pack(parts)


def test_plain_zarr_opens_it(parts: ReleaseParts, path: Path) -> None:
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        assert group.attrs["format"] == "lvdd-release"
        assert bytes(group["cores"][...]) == b"".join(coded.data for coded in parts.classes.values())
        assert bytes(group["decoder"][...]) == parts.decoder_weights.to_bytes()
        assert group["labels"][...].tolist() == [0, 0, 0, 1, 1]


def test_a_single_clip_of_label_zero_is_stored_too(parts: ReleaseParts, tmp_path: Path) -> None:
    """An array of nothing but the fill value must not be dropped from the file."""
    one = replace(parts, classes={"jump high": parts.classes["jump high"]})
    path = tmp_path / "one.zarr.zip"
    path.write_bytes(pack(one))
    assert load_release(path).labels.tolist() == [0, 0, 0]


def test_classes_of_several_forms_lie_in_one_file(parts: ReleaseParts, tmp_path: Path) -> None:
    latents = class_coding.decode(parts.classes["läuft"])
    classes = {
        "range": parts.classes["läuft"],
        "tucker": class_coding.encode_tucker(tucker.decompose(latents, ranks=(3, 4, 4, 4), instance_rank=1)),
        "svd": class_coding.encode_svd(tucker.truncated_svd(latents, 1)),
        "again": class_coding.ClassCoder(tucker.decompose(latents)).encode(0.5),
    }
    path = tmp_path / "forms.zarr.zip"
    path.write_bytes(pack(replace(parts, classes=classes)))
    release = load_release(path)
    for label, coded in enumerate(classes.values()):
        np.testing.assert_array_equal(release.latents(label), class_coding.decode(coded))
    assert read_ledger(path).total == path.stat().st_size


def test_a_shared_basis_is_stored_once_and_counted(parts: ReleaseParts, tmp_path: Path) -> None:
    hosvds = [tucker.decompose(class_coding.decode(coded)) for coded in parts.classes.values()]
    shared = class_coding.share_basis([class_coding.gram_matrices(hosvd) for hosvd in hosvds])
    coders = [class_coding.ClassCoder(hosvd, shared) for hosvd in hosvds]
    classes = {name: coder.encode(0.25, basis="shared") for name, coder in zip(parts.classes, coders, strict=True)}
    path = tmp_path / "shared.zarr.zip"
    path.write_bytes(pack(replace(parts, classes=classes, shared=shared)))
    assert [line.num_bytes for line in read_ledger(path).lines if line.part == "basis"] == [len(shared.angles)]
    assert read_ledger(path).total == path.stat().st_size
    release = load_release(path)
    for label, coded in enumerate(classes.values()):
        np.testing.assert_array_equal(release.latents(label), class_coding.decode(coded, shared))
    path.write_bytes(pack(replace(parts, shared=shared)))  # nobody uses it
    assert load_release(path).shared is None


def _rezip(path: Path, changes: dict[str, bytes | None]) -> None:
    """The same zip with some entries replaced, removed (None) or added."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    entries = {name: data for name, data in {**entries, **changes}.items() if data is not None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())


def _edit(path: Path, entry: str, *route: object, value: object) -> None:
    with zipfile.ZipFile(path) as archive:
        content = json.loads(archive.read(entry))
    place = content
    for step in route[:-1]:
        place = place[step]
    place[route[-1]] = value
    _rezip(path, {entry: json.dumps(content).encode()})


ATTRIBUTES_VERSION = ("zarr.json", "attributes", "version")


@pytest.mark.parametrize(
    ("entry", "route", "value", "message"),
    [
        ("zarr.json", ("attributes", "format"), "other", "this is no release"),
        ("zarr.json", ("attributes", "version"), 5, "version 5, this package reads 1 to 4: upgrade"),
        ("zarr.json", ("attributes", "clip"), [4, 2, 10**6], "would take 36000000000000 B decoded"),
        ("zarr.json", ("attributes", "clip"), [4, 2, 36], "do not decode"),
        ("zarr.json", ("attributes", "clip"), [4, 2, 33], "do not decode"),
        ("zarr.json", ("attributes", "classes", 0, 2), 10**9, "add up to"),
        ("zarr.json", ("attributes", "classes", 0, 1), 10**9, "labels do not fit"),
        ("zarr.json", ("attributes", "classes", 0, 0), "läuft", "class names repeat"),
        ("zarr.json", ("attributes", "forms", 0, 0), "pickle", "unknown codec 'pickle'"),
        ("zarr.json", ("attributes", "forms", 0, 1), [4, 4, 9, 9], "do not decode"),
        ("zarr.json", ("attributes", "forms", 0, 2), [4, 4, 5, 4], "with ranks"),
        ("zarr.json", ("attributes", "forms", 0, 3), -1.0, "is positive"),
        ("zarr.json", ("attributes", "classes", 0, 3), 1, "a form that is not there"),
        ("zarr.json", ("attributes", "basis"), 7, "add up to"),
        ("zarr.json", ("attributes", "decoder", 0), "os.system", "os.system"),
        ("zarr.json", ("attributes", "classes", 0, 1), float("inf"), "'inf' clips; expected a whole number"),
        ("zarr.json", ("attributes", "classes", 0, 1), True, "'True' clips"),
        ("zarr.json", ("attributes", "classes", 0, 2), -1, "'-1' bytes"),
        ("zarr.json", ("attributes", "classes", 0, 2), 392.0, "'392.0' bytes"),
        ("zarr.json", ("attributes", "classes", 0, 3), "0", "'0' as form"),
        ("zarr.json", ("attributes", "classes", 0, 0), None, "'None' is no name"),
        ("zarr.json", ("attributes", "classes", 0, 0), "\x1b[2J", "is no name"),
        ("zarr.json", ("attributes", "classes", 0, 0), "\ud800", "is no name"),
        ("zarr.json", ("attributes", "dataset"), ["videos"], "is no name"),
        ("zarr.json", ("attributes", "classes"), [], "no lists of forms and classes"),
        ("zarr.json", ("attributes", "classes"), {"a": 1}, "no lists of forms and classes"),
        ("zarr.json", ("attributes", "forms"), [["video"]], "clips of 93 frames of 12×12027"),
        ("zarr.json", ("attributes", "forms", 0), "video", "of form 'video'; expected a list"),
        ("zarr.json", ("attributes", "forms", 0, 1), [4, 4, float("nan"), 8], "'nan' as size of a mode"),
        ("zarr.json", ("attributes", "forms", 0, 3), 10**400, "OverflowError"),
        ("zarr.json", ("attributes", "forms", 0, 3), "0.25", "of step '0.25'; expected a number"),
        ("zarr.json", ("attributes", "basis"), None, "'None' bytes of a basis"),
        ("zarr.json", ("attributes", "clip"), [4, 2], "TypeError"),
        ("zarr.json", ("attributes", "provenance"), 7, "TypeError"),
        ("cores/zarr.json", ("shape",), [10**12], "claims 1000000000000 values"),
        ("decoder/zarr.json", ("shape",), [10**12], "claims 1000000000000 values"),
        ("cores/zarr.json", ("codecs",), [{"name": "numcodecs.pickle"}], "never use"),
        ("labels/zarr.json", ("data_type",), "float64", "never use"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_lies_are_refused(path: Path, entry: str, route: tuple[object, ...], value: object, message: str) -> None:
    _edit(path, entry, *route, value=value)
    with memory_limit(SMALL_MEMORY), pytest.raises(ReleaseError, match=message) as caught:
        load_release(path)
    assert str(caught.value).startswith(str(path))
    try:  # the ledger needs less of the file, and has no other error either
        assert read_ledger(path).total == path.stat().st_size
    except ReleaseError as error:
        assert str(error)  # noqa: PT017


def test_strange_entries_are_refused(path: Path) -> None:
    for changes in ({"../escape": b"x"}, {"evil/zarr.json": b"{}"}, {"labels/c/0": None}):
        good = path.read_bytes()
        _rezip(path, changes)
        with pytest.raises(ReleaseError, match="missing, unknown or double"):
            load_release(path)
        path.write_bytes(good)


def test_a_newer_file_is_told_by_its_version_whatever_else_is_in_it(path: Path) -> None:
    _edit(path, *ATTRIBUTES_VERSION, value=5)
    _rezip(path, {"novelty/zarr.json": b"{}", "novelty/c/0": b"x"})
    for read in (load_release, read_ledger):
        with pytest.raises(ReleaseError, match="version 5, this package reads 1 to 4: upgrade lvdd-assets"):
            read(path)


@pytest.fixture(scope="module")
def soft_parts(parts: ReleaseParts) -> ReleaseParts:
    generator = np.random.default_rng(1)
    levels = {name: soft_labels.quantize(generator.dirichlet([0.5, 0.5], size=9)) for name in COUNTS}
    return replace(parts, soft_labels=levels)


@pytest.fixture
def soft_path(soft_parts: ReleaseParts, tmp_path: Path) -> Path:
    file = tmp_path / "soft.zarr.zip"
    file.write_bytes(pack(soft_parts))
    return file


def test_soft_labels_come_back_with_their_clips(soft_parts: ReleaseParts, soft_path: Path) -> None:
    release = load_release(soft_path)
    expected = np.concatenate(
        [soft_labels.dequantize(soft_parts.soft_labels[name][:count]) for name, count in COUNTS.items()]
    )
    np.testing.assert_array_equal(release.soft_labels, expected)
    hard, soft = release.dataset(), release.dataset(labels="soft")
    assert len(soft) == 5
    for index in (0, 4, -2):
        clip, label = soft[index]
        assert torch.equal(clip, hard[index][0])
        assert (label.dtype, tuple(label.shape)) == (torch.float32, (2,))
        np.testing.assert_array_equal(label, expected[index])
    with pytest.raises(IndexError):
        soft[5]
    clips, labels = next(iter(DataLoader(soft, batch_size=5)))
    assert (clips.shape, labels.shape) == ((5, 4, 3, 32, 32), (5, 2))
    torch.testing.assert_close(labels.sum(1), torch.ones(5))
    assert [label for _, label in hard] == [0, 0, 0, 1, 1]  # the default has not changed


def test_soft_labels_are_counted_as_labels(path: Path, soft_path: Path) -> None:
    plain, soft = (
        {line.part: line.num_bytes for line in read_ledger(file).lines if line.part != "cores"}
        for file in (path, soft_path)
    )
    assert soft["labels"] - plain["labels"] >= 5  # ten levels, of which half say all, and zstd's frame
    assert read_ledger(soft_path).total == soft_path.stat().st_size
    assert soft.keys() == plain.keys()


def test_only_files_with_soft_labels_are_of_version_4(path: Path, soft_path: Path) -> None:
    versions = []
    for file in (path, soft_path):
        with zipfile.ZipFile(file) as archive:
            versions.append(json.loads(archive.read("zarr.json"))["attributes"]["version"])
    assert versions == [3, 4]


def test_a_release_without_soft_labels_says_so(path: Path) -> None:
    release = load_release(path)
    assert not release.has_soft_labels
    with pytest.raises(ValueError, match=r"release videos has no soft labels.*soft_labels: true"):
        release.dataset(labels="soft")
    with pytest.raises(ValueError, match="'fuzzy'; expected 'hard' or 'soft'"):
        release.dataset(labels="fuzzy")  # type: ignore[call-overload]


def test_lies_about_soft_labels_are_refused(soft_path: Path) -> None:
    good = soft_path.read_bytes()
    _edit(soft_path, *ATTRIBUTES_VERSION, value=3)  # version 3 had none
    with pytest.raises(ReleaseError, match=r"soft_labels.*unknown"):
        load_release(soft_path)
    soft_path.write_bytes(good)
    _edit(soft_path, "soft_labels/zarr.json", "shape", value=[10**12])
    with pytest.raises(ReleaseError, match="claims 1000000000000 values"):
        load_release(soft_path)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.full(8, 255, dtype=np.uint8), "8 soft labels do not fit 5 clips of 2 classes"),
        (np.full(10, 200, dtype=np.uint8), "largest level of row 0 is 200"),
        (np.zeros(10, dtype=np.uint8), "largest level of row 0 is 0"),
    ],
)
def test_soft_labels_that_cannot_be_are_refused(path: Path, tmp_path: Path, levels: np.ndarray, message: str) -> None:
    attributes, arrays = release_files.read(path)
    del attributes["format"], attributes["version"]
    forged = tmp_path / "forged.zarr.zip"
    forged.write_bytes(release_files.write(attributes, {**arrays, "soft_labels": levels}))
    with pytest.raises(ReleaseError, match=message):
        load_release(forged)


def test_cut_files_are_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ReleaseError):
            load_release(path)


def test_flipped_bits_never_pass_as_another_kind_of_error(path: Path) -> None:
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(data), size=400):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            release = load_release(path)
            release.build_decoder()
            release.latents(0)
        except ValueError:
            continue
        # A flip that was not noticed lies in what carries no information: the zip's own records or the JSON's blanks.
        assert isinstance(release, Release)


LAST = {"own": 0, "shared": 1, "läuft": 2, "tucker": 3, "instance": 4, "svd": 5, "av1": 6, "hevc": 7, "h264": 8}


@pytest.fixture
def every_kind(tmp_path: Path) -> Path:
    """A file with a class of every kind that is written today, two clips each."""
    path = tmp_path / "every kind.zarr.zip"
    shutil.copy(Path(__file__).parent / "golden" / "release-v3.zarr.zip", path)
    return path


def _damage_class(path: Path, label: int, place: float, byte: int) -> None:
    """Changes a byte of one class under a right checksum."""
    with zipfile.ZipFile(path) as archive:
        attributes, data = json.loads(archive.read("zarr.json"))["attributes"], bytearray(archive.read("cores/c/0"))
    sizes = [row[2] for row in attributes["classes"]]
    data[attributes["basis"] + sum(sizes[:label]) + int(place * (sizes[label] - 1))] ^= byte
    _rezip(path, {"cores/c/0": bytes(data)})


@pytest.mark.parametrize("name", LAST)
def test_what_is_damaged_in_a_class_is_told_when_it_is_decoded(every_kind: Path, name: str) -> None:
    """With file and class; other classes are read as before."""
    good, label, refused = every_kind.read_bytes(), LAST[name], 0
    for place in np.linspace(0.3, 1, 12):
        every_kind.write_bytes(good)
        _damage_class(every_kind, label, place, 0xFF)
        where = re.escape(f"{every_kind}, class {name!r}")
        try:
            dataset = load_release(every_kind).dataset()
            clip, got = dataset[2 * label]
            assert (tuple(clip.shape), got) == ((4, 3, 16, 16), label)
        except ReleaseError as error:
            assert re.match(where, str(error)), error  # noqa: PT017
            refused += 1
            continue
        other = 2 * ((label + 1) % len(LAST))
        assert dataset[other][1] == other // 2
    assert refused > 0 or name in ("own", "shared", "läuft", "tucker", "instance", "svd")  # any number is a coefficient


def test_floats_that_are_not_finite_are_refused(every_kind: Path) -> None:
    for label in (LAST["tucker"], LAST["instance"], LAST["svd"]):
        good = every_kind.read_bytes()
        with zipfile.ZipFile(every_kind) as archive:
            attributes = json.loads(archive.read("zarr.json"))["attributes"]
            data = bytearray(archive.read("cores/c/0"))
        start = attributes["basis"] + sum(row[2] for row in attributes["classes"][:label])
        data[start : start + 4] = np.float32("nan").tobytes()
        _rezip(every_kind, {"cores/c/0": bytes(data)})
        with pytest.raises(ReleaseError, match="not finite"):
            load_release(every_kind).latents(label)
        every_kind.write_bytes(good)
    _edit(every_kind, "zarr.json", "attributes", "forms", 0, 3, value=1e300)
    with pytest.raises(ReleaseError, match=r"class 'own'.*are not finite"):
        load_release(every_kind).latents(LAST["own"])


def test_a_decoder_of_other_weights_is_refused_before_memory_is_taken(path: Path) -> None:
    load_release(path).build_decoder()  # what is imported late is
    wide = [1024] * 4  # some 600 MB as float32; the file has kilobytes
    _edit(path, "zarr.json", "attributes", "decoder", 1, "decoder_block_out_channels", value=wide)
    release = load_release(path)
    with memory_limit(SMALL_MEMORY), pytest.raises(ReleaseError, match=r"decoder: \d+ bytes of weights, but"):
        release.build_decoder()
    with memory_limit(SMALL_MEMORY), pytest.raises(ReleaseError, match="bytes of weights"):
        release.dataset()[0]


def test_clips_by_the_hundred_thousand_in_some_kilobytes_are_refused(every_kind: Path) -> None:
    """A class of the mean alone (rank 0 of `svd-f32`) costs no byte a clip."""
    with zipfile.ZipFile(every_kind) as archive:
        content, data = json.loads(archive.read("zarr.json")), archive.read("cores/c/0")
        headers = {name: json.loads(archive.read(f"{name}/zarr.json")) for name in ("cores", "labels")}
    attributes = content["attributes"]
    size = 4 * 4 * 4 * 8 * 8  # the mean, float32
    start = attributes["basis"] + sum(row[2] for row in attributes["classes"][: LAST["svd"]])
    attributes |= {"basis": 0, "forms": [["svd-f32", [4, 4, 8, 8], [0], 0.0]]}

    def write(count: int) -> None:
        attributes["classes"] = [["mean", count, size, 0]]
        labels = Zstd(level=22).encode(np.zeros(count, dtype=np.uint16))
        for name, length in (("cores", size), ("labels", count)):
            headers[name]["shape"] = headers[name]["chunk_grid"]["configuration"]["chunk_shape"] = [length]
        changes = {f"{name}/zarr.json": json.dumps(header).encode() for name, header in headers.items()}
        changes |= {"zarr.json": json.dumps(content).encode(), "labels/c/0": labels}
        _rezip(every_kind, {**changes, "cores/c/0": data[start : start + size]})

    write(5)
    assert load_release(every_kind).latents(0).shape == (5, 4, 4, 8, 8)
    write(400_000)
    with (
        memory_limit(SMALL_MEMORY),
        pytest.raises(ReleaseError, match=r"class 'mean': a class of 400000 clips of .*would"),
    ):
        load_release(every_kind)


def test_an_own_class_that_enlarges_by_nothing_is_refused(path: Path) -> None:
    own = {"config": {}, "frames": [1, 1, 0], "is_temporal": False, "latent_channels": 4}
    own |= {"scaling_factor": 1.0, "shift_factor": None, "upsampling": 0}
    _edit(path, "zarr.json", "attributes", "decoder", value=["os:system", own])
    with pytest.raises(ReleaseError, match="no latent channels, upsampling"):
        load_release(path)
    _edit(path, "zarr.json", "attributes", "decoder", value=["os:system", {**own, "upsampling": 8}])
    with pytest.raises(ReleaseError, match="is not run unasked"):
        load_release(path).build_decoder()


def test_questions_that_a_release_cannot_answer_are_no_damage(every_kind: Path, soft_path: Path) -> None:
    release = load_release(every_kind)
    for ask in (lambda: release.soft_labels, lambda: release.latents(LAST["av1"]), lambda: release.dataset("soft")):
        with pytest.raises(ValueError, match=r"has no|kept as video") as caught:
            ask()
        assert not isinstance(caught.value, ReleaseError)
    soft = load_release(soft_path)
    assert soft.soft_labels.shape == (5, 2)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no release file at"):
        load_release(tmp_path / "absent.zip")


def _latent_parts(folder: Path, **changes: object) -> ReleaseParts:
    """A release of one class of noise, by the autoencoder in a folder."""
    vae = load_autoencoder(str(folder))
    clips = np.random.default_rng(0).integers(0, 255, size=(2, 8, 3, 16, 16)).astype(np.uint8)
    result = tucker.decompose(vae.encode(clips))
    coded = class_coding.ClassCoder(result).encode(0.25)
    scheme = changes.get("scheme", "channels")
    weights = quantize_weights(vae.decoder(), scheme=scheme)  # type: ignore[arg-type]
    parts = ReleaseParts("noise", ClipShape(8, 1, 16), {"noise": coded}, vae.decoder_spec, weights)
    return replace(parts, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["AutoencoderTinyVideo", "AutoencoderKLWan"])
@pytest.mark.parametrize("scheme", ["channels", "linear"])
def test_a_3d_decoder_gives_back_every_frame(saved: dict[str, Path], tmp_path: Path, kind: str, scheme: str) -> None:
    path = tmp_path / "noise.zarr.zip"
    parts = _latent_parts(saved[kind], scheme=scheme)
    path.write_bytes(pack(parts))
    release = load_release(path)
    clip, label = release.dataset()[1]
    assert (clip.shape, label) == ((8, 3, 16, 16), 0)
    decoder = load_autoencoder(str(saved[kind])).decoder()
    decoder.load_state_dict(dequantize(parts.decoder_weights))
    np.testing.assert_array_equal(clip, decoder.decode(release.latents(0), num_frames=8)[1])


def test_an_unknown_scheme_of_weights_is_refused(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zarr.zip"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'"channels"', b'"columns"'))
    with pytest.raises(ReleaseError, match=r"scheme 'columns', expected .'channels', 'linear'"):
        load_release(damaged)


def test_the_encoder_is_counted_and_not_read(saved: dict[str, Path], tmp_path: Path) -> None:
    plain, counted = tmp_path / "plain.zarr.zip", tmp_path / "counted.zarr.zip"
    plain.write_bytes(pack(_latent_parts(saved["AutoencoderTiny"])))
    noise = np.random.default_rng(0).bytes(5000)
    counted.write_bytes(pack(_latent_parts(saved["AutoencoderTiny"], encoder=noise)))
    parts = {line.part: line.num_bytes for line in read_ledger(counted).lines}
    assert parts["encoder"] >= 5000
    assert read_ledger(counted).total == counted.stat().st_size
    assert "encoder" not in {line.part for line in read_ledger(plain).lines}
    clips = [load_release(path).dataset()[0][0] for path in (plain, counted)]
    assert torch.equal(*clips)


def test_releases_of_earlier_versions_still_open(tmp_path: Path) -> None:
    """The file was written by version 2; version 1 had no scheme of weights."""
    golden = Path(__file__).parent / "golden"
    second, first = golden / "release-v2.zarr.zip", tmp_path / "first.zarr.zip"
    shutil.copy(second, first)
    with zipfile.ZipFile(first) as archive:
        header = json.loads(archive.read("zarr.json"))
    header["attributes"]["version"] = 1
    del header["attributes"]["scheme"]
    _rezip(first, {"zarr.json": json.dumps(header).encode()})
    expected = np.load(golden / "release-v2-latents.npy")
    for path in (first, second):
        release = load_release(path)
        assert release.class_names == ("jump high", "läuft")
        np.testing.assert_allclose(np.concatenate([release.latents(0), release.latents(1)]), expected, atol=1e-5)
        assert release.dataset()[4][0].shape == (4, 3, 32, 32)
        assert read_ledger(path).total == path.stat().st_size
