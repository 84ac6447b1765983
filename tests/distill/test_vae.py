"""`vae`: every class behind one interface, and what can be wrong with weights."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

import lvdd_assets
from lvdd_assets.distill import latent_decoders
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.vae_folders import find_autoencoder
from tests.distill.autoencoders import CLIP_KINDS, FRAME_KINDS, WEIGHTS, edit_config, random_clips, small_model

TAESD = Path(__file__).parents[3] / "shared" / "weights" / "taesd"


@pytest.fixture(params=FRAME_KINDS)
def folder(request: pytest.FixtureRequest, saved: dict[str, Path]) -> Path:
    """A 2D autoencoder of each class."""
    return saved[request.param]


@pytest.fixture(params=CLIP_KINDS)
def clip_folder(request: pytest.FixtureRequest, saved: dict[str, Path]) -> Path:
    """A 3D autoencoder of each class; 4 frames a latent."""
    return saved[request.param]


def _psnr(clips: np.ndarray, decoded: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((clips.astype(float) - decoded) ** 2))


def test_latents_are_the_mode_times_the_scaling_factor(folder: Path) -> None:
    clips = random_clips()
    latents = load_autoencoder(str(folder)).encode(clips)
    frames = torch.from_numpy(clips).flatten(0, 1).float() / 127.5 - 1
    model = small_model(folder.name)
    with torch.no_grad():
        encoded = model.encode(frames)
    expected = encoded.latents * 1.5 if folder.name == "AutoencoderTiny" else (encoded.latent_dist.mode() - 0.25) * 0.5
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, expected.unflatten(0, (3, 2)).numpy(), atol=1e-4)


def test_decoding_undoes_the_scaling(folder: Path) -> None:
    autoencoder, clips = load_autoencoder(str(folder)), random_clips()
    model = small_model(folder.name)
    frames = torch.from_numpy(clips).flatten(0, 1).float() / 127.5 - 1
    with torch.no_grad():
        encoded = model.encode(frames)
        raw = encoded.latents if folder.name == "AutoencoderTiny" else encoded.latent_dist.mode()
        expected = ((model.decode(raw).sample + 1) * 127.5).clamp(0, 255)
    decoded = autoencoder.decode(autoencoder.encode(clips))
    assert decoded.dtype == np.uint8
    assert decoded.shape == clips.shape
    # Rounding to uint8 is the only difference but for the order of float32 additions.
    np.testing.assert_allclose(decoded, expected.unflatten(0, (3, 2)).numpy(), atol=0.51)


def test_the_decoder_alone_decodes_exactly_as_the_autoencoder(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(random_clips(5))
    built = build_decoder(DecoderSpec.from_json(autoencoder.decoder_spec.to_json()))
    built.load_state_dict(autoencoder.decoder().state_dict())
    expected = autoencoder.decode(latents)
    np.testing.assert_array_equal(autoencoder.decoder().decode(latents), expected)
    np.testing.assert_array_equal(built.decode(torch.from_numpy(latents)), expected)


def test_a_clip_is_decoded_the_same_in_any_company(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(random_clips(4))
    together = autoencoder.decode(latents).astype(int)
    alone = np.concatenate([autoencoder.decode(latents[i : i + 1]) for i in range(4)]).astype(int)
    assert np.abs(together - alone).max() <= 1  # another batch size may add in another order, never more


def test_changing_the_copy_leaves_the_autoencoder_alone(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(random_clips())
    before = autoencoder.decode(latents)
    copied = autoencoder.decoder()
    copied.load_state_dict({key: torch.zeros_like(value) for key, value in copied.state_dict().items()})
    np.testing.assert_array_equal(autoencoder.decode(latents), before)


def test_the_same_clip_gives_the_same_latents_every_time(folder: Path) -> None:
    first, second = (load_autoencoder(str(folder)).encode(random_clips()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_decoder(load_autoencoder(str(folder)).decoder_spec)
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_stays_near_float32(folder: Path) -> None:
    exact = load_autoencoder(str(folder))
    fast = load_autoencoder(str(folder), dtype=torch.bfloat16)
    latents = exact.encode(random_clips())
    assert fast.encode(random_clips()).dtype == np.float32
    assert np.abs(fast.encode(random_clips()) - latents).max() < 0.05 * np.abs(latents).max()
    assert _psnr(exact.decode(latents), fast.decode(latents)) > 40


def test_latent_shape_is_the_shape_of_the_latents(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    shape = autoencoder.latent_shape(ClipShape(frames=2, stride=1, size=16))
    assert shape == (2, 4, 4, 4)
    assert autoencoder.encode(random_clips()).shape == (3, *shape)


def test_no_clips_and_oblongrandom_clips(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    assert autoencoder.decode(autoencoder.encode(random_clips(0))).shape == (0, 2, 3, 16, 16)
    assert autoencoder.encode(random_clips(1, 1, 8, 20)).shape == (1, 1, 4, 2, 5)


def test_more_frames_than_one_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(random_clips(5))
    monkeypatch.setitem(latent_decoders.PIXELS_PER_BATCH, "cpu", 3 * 16 * 16)
    np.testing.assert_allclose(autoencoder.encode(random_clips(5)), latents, atol=1e-5)


def test_a_batch_too_large_for_the_memory_is_halved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder(str(folder))
    expected = autoencoder.encode(random_clips(5))
    encode, sizes = autoencoder._model.encode, []

    def scarce(pixels: torch.Tensor) -> object:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return encode(pixels)

    monkeypatch.setattr(autoencoder._model, "encode", scarce)
    np.testing.assert_allclose(autoencoder.encode(random_clips(5)), expected, atol=1e-5)
    assert sizes[0] > 3
    assert sum(size for size in sizes if size <= 3) == 10  # no frame twice, none left out


def test_a_frame_too_large_for_the_memory_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder(str(folder))

    def fail(_pixels: torch.Tensor) -> object:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(autoencoder._model, "encode", fail)
    with pytest.raises(ValueError, match="memory of cpu does not hold one item of 256 pixels: take smaller clips"):
        autoencoder.encode(random_clips(1))


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (random_clips().astype(np.float32), "must be uint8 .*float32"),
        (random_clips()[0], r"must be uint8 \[N, T, 3, H, W\].*\(2, 3, 16, 16\)"),
        (random_clips()[:, :, :1], r"\(3, 2, 1, 16, 16\)"),
        (random_clips(1, 1, 18, 16), "multiple of 4; got 18 × 16: use 16"),
    ],
    ids=["float", "no clips axis", "grey", "odd size"],
)
def test_unfitrandom_clips(folder: Path, clips: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_autoencoder(str(folder)).encode(clips)


def test_bytes_are_those_of_float32_weights(folder: Path) -> None:
    model = small_model(folder.name)
    count = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("encoder", "decoder")}
    if folder.name == "AutoencoderKL":
        count["encoder"] += sum(p.numel() for p in model.quant_conv.parameters())
        count["decoder"] += sum(p.numel() for p in model.post_quant_conv.parameters())
    assert load_autoencoder(str(folder)).num_bytes() == {part: 4 * number for part, number in count.items()}


def test_clip_size_that_is_not_divisible(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"4 × 4 pixels.*got 63 × 63"):
        load_autoencoder(str(folder)).latent_shape(ClipShape(frames=2, stride=1, size=63))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.zeros((1, 2, 4, 4)), r"\[N, T, 4, h, w\]"),
        (np.zeros((1, 2, 3, 4, 4)), r"1, 2, 3, 4, 4.*\[N, T, 4, h, w\]"),
        (np.zeros((1, 2, 4, 4, 4), np.int32), "int32"),
        (np.full((1, 2, 4, 4, 4), np.nan), "NaN"),
    ],
    ids=["four axes", "channels", "integers", "nan"],
)
def test_unfit_latents(folder: Path, latents: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_autoencoder(str(folder)).decode(latents)


# --- autoencoders that see clips

# Frames that a clip is padded to and the latent frames they become, by the causal rules that diffusers documents.
PADDED = {
    "AutoencoderTinyVideo": {1: (4, 1), 4: (4, 1), 5: (8, 2), 8: (8, 2), 16: (16, 4)},
    "AutoencoderKLCogVideoX": {1: (1, 1), 2: (9, 3), 8: (9, 3), 9: (9, 3), 10: (17, 5), 17: (17, 5)},
    "AutoencoderKLWan": {1: (1, 1), 2: (5, 2), 4: (5, 2), 5: (5, 2), 8: (9, 3), 9: (9, 3), 13: (13, 4), 16: (17, 5)},
}


def test_every_number_of_frames_is_padded_in_and_cropped_out(clip_folder: Path) -> None:
    autoencoder = load_autoencoder(str(clip_folder))
    for num_frames, (padded, latent_frames) in PADDED[clip_folder.name].items():
        assert autoencoder.decoder_spec.frame_rule.padded(num_frames) == padded
        clips = random_clips(2, num_frames)
        latents = autoencoder.encode(clips)
        assert latents.shape == (2, *autoencoder.latent_shape(ClipShape(num_frames, 1, 16)))
        assert latents.shape[1] == latent_frames
        assert autoencoder.decode(latents).shape[1] == padded
        decoded = autoencoder.decode(latents, num_frames=num_frames)
        assert decoded.shape == clips.shape
        np.testing.assert_array_equal(decoded, autoencoder.decode(latents)[:, :num_frames])


def test_no_decoded_frame_is_a_copy_of_another(clip_folder: Path) -> None:
    autoencoder = load_autoencoder(str(clip_folder))
    for num_frames in (6, 7, 8, 11):
        frames = autoencoder.decode(autoencoder.encode(random_clips(1, num_frames)), num_frames=num_frames)[0]
        assert len({frame.tobytes() for frame in frames}) == num_frames


def test_latents_of_clips_are_the_mode_in_unit_scale(clip_folder: Path) -> None:
    clips = random_clips(2, 9 if clip_folder.name != "AutoencoderTinyVideo" else 8)
    model = small_model(clip_folder.name).eval()
    pixels = torch.from_numpy(clips).float().div(127.5).sub(1).transpose(1, 2)
    with torch.no_grad():
        mode = model.encode(pixels).latent_dist.mode()
        expected_clips = ((model.decode(mode).sample.transpose(1, 2) + 1) * 127.5).clamp(0, 255)
    if clip_folder.name == "AutoencoderKLWan":
        channels = torch.arange(4).reshape(4, 1, 1, 1)
        expected = (mode - (channels + 1) / 10) / ((channels + 1) / 2)
    else:
        expected = mode * {"AutoencoderTinyVideo": 0.9, "AutoencoderKLCogVideoX": 0.7}[clip_folder.name]
    autoencoder = load_autoencoder(str(clip_folder))
    latents = autoencoder.encode(clips)
    np.testing.assert_allclose(latents, expected.transpose(1, 2).numpy(), atol=1e-4)
    np.testing.assert_allclose(autoencoder.decode(latents), expected_clips.numpy(), atol=0.51)


def test_a_later_piece_of_a_clip_changes_no_earlier_latent(clip_folder: Path) -> None:
    num_frames = 16 if clip_folder.name == "AutoencoderTinyVideo" else 17
    first = num_frames - 8
    clips = random_clips(1, num_frames)
    later = clips.copy()
    later[:, first:] = 255 - later[:, first:]
    autoencoder = load_autoencoder(str(clip_folder))
    before, after = autoencoder.encode(clips), autoencoder.encode(later)
    unmoved = -(-first // 4)
    np.testing.assert_allclose(after[:, :unmoved], before[:, :unmoved], atol=1e-5)
    assert np.abs(after[:, unmoved:] - before[:, unmoved:]).max() > 1e-3


def test_clips_are_encoded_the_same_in_any_company(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder(str(clip_folder))
    together = autoencoder.encode(random_clips(3, 8))
    decoded = autoencoder.decode(together, num_frames=8)
    monkeypatch.setitem(latent_decoders.PIXELS_PER_BATCH, "cpu", 1)
    np.testing.assert_allclose(autoencoder.encode(random_clips(3, 8)), together, atol=1e-5)
    assert np.abs(autoencoder.decode(together, num_frames=8).astype(int) - decoded).max() <= 1


def test_the_decoder_of_clips_alone_decodes_exactly_as_the_autoencoder(clip_folder: Path) -> None:
    autoencoder = load_autoencoder(str(clip_folder))
    latents = autoencoder.encode(random_clips(2, 8))
    built = build_decoder(DecoderSpec.from_json(autoencoder.decoder_spec.to_json()))
    built.load_state_dict(autoencoder.decoder().state_dict())
    np.testing.assert_array_equal(built.decode(latents, num_frames=8), autoencoder.decode(latents, num_frames=8))


def test_frames_that_do_not_fit_the_latents(clip_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"17 frames need 5 latent frames, got 2"):
        load_autoencoder(str(clip_folder)).decode(np.zeros((1, 2, 4, 4, 4), np.float32), num_frames=17)


def test_no_clips_at_all(clip_folder: Path) -> None:
    autoencoder = load_autoencoder(str(clip_folder))
    assert autoencoder.decode(autoencoder.encode(random_clips(0, 8)), num_frames=8).shape == (0, 8, 3, 16, 16)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTinyVideo", "AutoencoderKLWan"])
def test_a_drawn_latent_is_the_posteriors(kind: str, saved: dict[str, Path]) -> None:
    autoencoder = load_autoencoder(str(saved[kind]))
    clips = np.repeat(random_clips(1, 8 if kind == "AutoencoderTinyVideo" else 9), 64, axis=0)
    mode = autoencoder.encode(clips[:1])
    drawn = autoencoder.encode(clips, draw=(3, 0))
    np.testing.assert_array_equal(drawn, autoencoder.encode(clips, draw=(3, 0)))
    np.testing.assert_allclose(drawn[5:7], autoencoder.encode(clips[5:7], draw=(3, 5)), atol=1e-5)
    assert not np.allclose(drawn[0], drawn[1])
    pixels = torch.from_numpy(clips[:1]).float().div(127.5).sub(1)
    with torch.no_grad():
        model = small_model(kind).eval()
        is_2d = kind == "AutoencoderKL"
        posterior = model.encode(pixels[0] if is_2d else pixels.transpose(1, 2)).latent_dist
    factor = {"AutoencoderKL": 0.5, "AutoencoderTinyVideo": 0.9}.get(kind)
    expected = posterior.std.numpy() * (factor or (1 / np.array([0.5, 1, 1.5, 2])).reshape(1, 4, 1, 1, 1))
    expected = expected[None] if is_2d else expected.swapaxes(1, 2)
    # 64 draws: mean and deviation lie within five standard errors.
    assert (np.abs(drawn.mean(axis=0) - mode[0]) < 5 * expected[0] / 8).all()
    np.testing.assert_allclose(drawn.std(axis=0).mean(), expected.mean(), rtol=0.05)


def test_nothing_can_be_drawn_without_a_posterior(tiny: Path) -> None:
    with pytest.raises(ValueError, match="no posterior to draw from"):
        load_autoencoder(str(tiny)).encode(random_clips(), draw=(0, 0))


# --- a class of its author's


def test_a_class_by_import_path(own_module: str) -> None:
    autoencoder = load_autoencoder(f"{own_module}:Pooling")
    assert autoencoder.latent_shape(ClipShape(8, 1, 16)) == (4, 2, 4, 4)
    clips = np.full((2, 6, 3, 16, 16), 100, np.uint8)
    latents = autoencoder.encode(clips)
    assert latents.shape[1:] == autoencoder.latent_shape(ClipShape(6, 1, 16))
    np.testing.assert_array_equal(autoencoder.decode(latents, num_frames=6), clips)
    assert "encoder.weight" not in str(list(autoencoder.decoder().state_dict()))


def test_a_class_by_import_path_is_run_for_those_who_trust_it_alone(own_module: str) -> None:
    autoencoder = load_autoencoder(f"{own_module}:Pooling")
    spec = DecoderSpec.from_json(autoencoder.decoder_spec.to_json())
    with pytest.raises(ValueError, match=f"not run unasked: pass trusted_classes=.'{own_module}:Pooling'"):
        build_decoder(spec)
    decoder = build_decoder(spec, trusted_classes=[f"{own_module}:Pooling"])
    decoder.load_state_dict(autoencoder.decoder().state_dict())
    latents = autoencoder.encode(random_clips(1, 8))
    np.testing.assert_array_equal(decoder.decode(latents), autoencoder.decode(latents))


def test_fingerprint_follows_the_source_of_a_class(own_module: str, tmp_path: Path) -> None:
    before = find_autoencoder(f"{own_module}:Pooling").fingerprint()
    source = tmp_path / f"{own_module}.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert find_autoencoder(f"{own_module}:Pooling").fingerprint() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MODULE:Absent", "cannot be imported"),
        ("no_such_module:Class", "cannot be imported.*install its package"),
        ("MODULE:Shrinking", "does not give back as many frames as it takes.*8: 7"),
        ("MODULE:Pooling@nowhere", "there is no folder .*nowhere; put the weights"),
        ("torch.nn:Identity", "takes neither clips .*'encode'"),
    ],
)
def test_classes_that_are_no_autoencoders(own_module: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_autoencoder(name.replace("MODULE", own_module))


# --- fingerprints


def test_fingerprint_follows_weights_and_configuration(tiny: Path) -> None:
    before = find_autoencoder(str(tiny)).fingerprint()
    assert load_autoencoder(str(tiny)).fingerprint == before
    edit_config(tiny, scaling_factor=1.25)
    changed = find_autoencoder(str(tiny)).fingerprint()
    weights = load_file(tiny / WEIGHTS)
    next(iter(weights.values())).mul_(1.5)
    save_file(weights, tiny / WEIGHTS)
    assert len({before, changed, find_autoencoder(str(tiny)).fingerprint()}) == 3


def test_fingerprint_does_not_depend_on_where_the_folder_is(tiny: Path) -> None:
    moved = tiny.rename(tiny.parent / "moved")
    assert find_autoencoder("moved", moved.parent).fingerprint() == find_autoencoder(str(moved)).fingerprint()


def test_nan_weights_are_refused(tiny: Path) -> None:
    weights = load_file(tiny / WEIGHTS)
    weights["decoder.layers.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, tiny / WEIGHTS)
    with pytest.raises(ValueError, match=r"decoder\.layers\.0\.weight holds NaN"):
        load_autoencoder(str(tiny))


def test_missing_weights_are_refused(tiny: Path) -> None:
    weights = load_file(tiny / WEIGHTS)
    del weights["decoder.layers.0.weight"]
    save_file(weights, tiny / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 tensors are missing or not known, the first 'decoder\.layers\.0\.weight'"):
        load_autoencoder(str(tiny))


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderTinyVideo"])
def test_a_configuration_that_lies_about_its_channels(saved: dict[str, Path], tmp_path: Path, kind: str) -> None:
    shutil.copytree(saved[kind], tmp_path / kind)
    edit_config(tmp_path / kind, latent_channels=7)
    with pytest.raises(ValueError, match=f"does not load as {kind}") as error:
        load_autoencoder(str(tmp_path / kind))
    assert re.search(r"\b(4|8)\b", str(error.value))  # a 3D encoder gives mean and variance of each channel
    assert re.search(r"\b(7|14)\b", str(error.value))


def test_weights_of_another_size_are_refused(tiny: Path) -> None:
    edit_config(tiny, decoder_block_out_channels=[5, 5, 5])
    with pytest.raises(ValueError, match="does not load as AutoencoderTiny"):
        load_autoencoder(str(tiny))


def test_damaged_weights_are_refused(tiny: Path) -> None:
    (tiny / WEIGHTS).write_bytes((tiny / WEIGHTS).read_bytes()[:100])
    with pytest.raises(ValueError, match="does not load as AutoencoderTiny"):
        load_autoencoder(str(tiny))


def test_encoder_and_decoder_must_fit_each_other(tmp_path: Path) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        num_encoder_blocks=(0, 1),
        decoder_block_out_channels=(6, 6, 6),
        num_decoder_blocks=(1, 0, 1),
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="2 times smaller, then 4 times larger"):
        load_autoencoder(str(tmp_path))


def test_import_starts_no_diffusers() -> None:
    code = "import sys, lvdd_assets.distill.vae; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- weights that exist


def _demo_clips(num_clips: int) -> np.ndarray:
    from lvdd_assets.distill.demo import MOTIONS, render_clip

    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=5_000_000 + i)[::3] for i in range(num_clips)]
    return np.stack(clips).transpose(0, 1, 4, 2, 3)


def test_embedded_autoencoder_is_small_and_sees_what_it_was_made_for() -> None:
    folder = Path(lvdd_assets.__file__ or "").parent / "weights" / "embedded-2d"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    autoencoder, clips = load_autoencoder("embedded-2d"), _demo_clips(8)
    assert autoencoder.latent_shape(ClipShape(8, 4, 64)) == (8, 4, 8, 8)
    latents = autoencoder.encode(clips)
    # Measured 30.5 dB on these clips (TAESD 29.5, bicubic 24.2); the rest is for other processors.
    assert _psnr(clips, autoencoder.decode(latents)) > 27.5
    # Unit scale is what training asks for over both its sources; the demo alone is off by up to half a unit.
    assert np.abs(latents.mean(axis=(0, 1, 3, 4))).max() < 0.8
    np.testing.assert_allclose(latents.std(axis=(0, 1, 3, 4)), 1, atol=0.4)


def test_taesd() -> None:
    if not TAESD.is_dir():
        pytest.skip(f"no weights in {TAESD}")
    autoencoder, clips = load_autoencoder(str(TAESD)), _demo_clips(2)
    assert autoencoder.latent_shape(ClipShape(8, 4, 64)) == (8, 4, 8, 8)
    assert _psnr(clips, autoencoder.decode(autoencoder.encode(clips))) > 20
