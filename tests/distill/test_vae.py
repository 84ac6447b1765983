"""`vae`: both classes behind one interface, the decoder on its own, and everything that can be wrong with a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.vae import (
    EMBEDDED,
    DecoderSpec,
    autoencoder_fingerprint,
    build_decoder,
    load_autoencoder,
)

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
TAESD = Path(__file__).parents[3] / "shared" / "weights" / "taesd"
KINDS = ("AutoencoderTiny", "AutoencoderKL")


def _model(kind: str) -> AutoencoderTiny | AutoencoderKL:
    torch.manual_seed(0)
    if kind == "AutoencoderTiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(0, 1, 1),
            decoder_block_out_channels=(6, 6, 6),
            num_decoder_blocks=(1, 0, 1),
            scaling_factor=1.5,
        )
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    )


@pytest.fixture(scope="session", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random autoencoder; 4 × 4 pixels a latent. Never written to."""
    path = tmp_path_factory.mktemp("autoencoders") / request.param
    _model(request.param).save_pretrained(path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a small AutoencoderTiny that a test may damage."""
    path = tmp_path / "tiny"
    _model("AutoencoderTiny").save_pretrained(path)
    return path


def _clips(num_clips: int = 3, num_frames: int = 2, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_clips, num_frames, 3, height, width), dtype=np.uint8)


def _edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def _psnr(clips: np.ndarray, decoded: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((clips.astype(float) - decoded) ** 2))


def test_latents_are_the_mode_times_the_scaling_factor(folder: Path) -> None:
    clips = _clips()
    latents = load_autoencoder(str(folder)).encode(clips)
    frames = torch.from_numpy(clips).flatten(0, 1).float() / 127.5 - 1
    model = _model(folder.name)
    with torch.no_grad():
        encoded = model.encode(frames)
    expected = encoded.latents * 1.5 if folder.name == "AutoencoderTiny" else (encoded.latent_dist.mode() - 0.25) * 0.5
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, expected.unflatten(0, (3, 2)).numpy(), atol=1e-4)


def test_decoding_undoes_the_scaling(folder: Path) -> None:
    autoencoder, clips = load_autoencoder(str(folder)), _clips()
    model = _model(folder.name)
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
    latents = autoencoder.encode(_clips(5))
    built = build_decoder(DecoderSpec.from_json(autoencoder.decoder_spec.to_json()))
    built.load_state_dict(autoencoder.decoder().state_dict())
    expected = autoencoder.decode(latents)
    np.testing.assert_array_equal(autoencoder.decoder().decode(latents), expected)
    np.testing.assert_array_equal(built.decode(torch.from_numpy(latents)), expected)


def test_a_clip_is_decoded_the_same_in_any_company(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(_clips(4))
    together = autoencoder.decode(latents).astype(int)
    alone = np.concatenate([autoencoder.decode(latents[i : i + 1]) for i in range(4)]).astype(int)
    assert np.abs(together - alone).max() <= 1  # another batch size may add in another order, never more


def test_changing_the_copy_leaves_the_autoencoder_alone(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(_clips())
    before = autoencoder.decode(latents)
    copied = autoencoder.decoder()
    copied.load_state_dict({key: torch.zeros_like(value) for key, value in copied.state_dict().items()})
    np.testing.assert_array_equal(autoencoder.decode(latents), before)


def test_the_same_clip_gives_the_same_latents_every_time(folder: Path) -> None:
    first, second = (load_autoencoder(str(folder)).encode(_clips()) for _ in range(2))
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
    latents = exact.encode(_clips())
    assert fast.encode(_clips()).dtype == np.float32
    assert np.abs(fast.encode(_clips()) - latents).max() < 0.05 * np.abs(latents).max()
    assert _psnr(exact.decode(latents), fast.decode(latents)) > 40


def test_latent_shape_is_the_shape_of_the_latents(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    shape = autoencoder.latent_shape(ClipShape(frames=2, stride=1, size=16))
    assert shape == (2, 4, 4, 4)
    assert autoencoder.encode(_clips()).shape == (3, *shape)


def test_no_clips_and_oblong_clips(folder: Path) -> None:
    autoencoder = load_autoencoder(str(folder))
    assert autoencoder.decode(autoencoder.encode(_clips(0))).shape == (0, 2, 3, 16, 16)
    assert autoencoder.encode(_clips(1, 1, 8, 20)).shape == (1, 1, 4, 2, 5)


def test_more_frames_than_one_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder(str(folder))
    latents = autoencoder.encode(_clips(5))
    monkeypatch.setattr("lvdd_assets.distill.vae._PIXELS_PER_BATCH", 3 * 16 * 16)
    np.testing.assert_allclose(autoencoder.encode(_clips(5)), latents, atol=1e-5)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (_clips().astype(np.float32), "must be uint8 .*float32"),
        (_clips()[0], r"must be uint8 \[N, T, 3, H, W\].*\(2, 3, 16, 16\)"),
        (_clips()[:, :, :1], r"\(3, 2, 1, 16, 16\)"),
        (_clips(1, 1, 18, 16), "multiple of 4; got 18 × 16: use 16"),
    ],
    ids=["float", "no clips axis", "grey", "odd size"],
)
def test_unfit_clips(folder: Path, clips: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_autoencoder(str(folder)).encode(clips)


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


# --- the decoder's specification


def test_specification_survives_json_and_is_small(folder: Path) -> None:
    spec = load_autoencoder(str(folder)).decoder_spec
    assert DecoderSpec.from_json(spec.to_json()) == spec
    assert DecoderSpec.from_json(spec.to_json().encode()).to_json() == spec.to_json()
    assert len(spec.to_json()) < 400
    assert not any(word in spec.to_json() for word in ("encoder_block_out", "sample_size", "_diffusers_version"))


def test_built_decoder_has_no_weights_until_they_are_loaded(folder: Path) -> None:
    state = build_decoder(load_autoencoder(str(folder)).decoder_spec).state_dict()
    assert all(not tensor.any() for tensor in state.values())
    assert {key.split(".")[0] for key in state} <= {"decoder", "post_quant_conv"}
    assert ("post_quant_conv.weight" in state) == (folder.name == "AutoencoderKL")


def _spec_json(kind: str, **changes: object) -> str:
    config = dict(DecoderSpec.from_config(kind, _model(kind).config).config)
    return json.dumps([kind, config | changes])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no decoder's specification"),
        ("[1, 2, 3]", "no decoder's specification"),
        ('["AutoencoderTiny", 3]', "no decoder's specification"),
        ("[" * 100_000, "no decoder's specification"),
        ('["Evil", {}]', "'Evil'; only AutoencoderKL, AutoencoderTiny"),
        ('["AutoencoderTiny", {}]', "needs the keys"),
        (_spec_json("AutoencoderTiny", extra=1), "needs the keys"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[4097] * 3), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[0] * 3), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=8), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[8, 8]), "as many of each"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[8, 8, 6]), "same number of channels"),
        (_spec_json("AutoencoderTiny", num_decoder_blocks=[10**9, 1, 1]), "num_decoder_blocks"),
        (_spec_json("AutoencoderTiny", num_decoder_blocks=[1] * 9), "num_decoder_blocks"),
        (_spec_json("AutoencoderTiny", upsampling_scaling_factor=9), "upsampling_scaling_factor"),
        (_spec_json("AutoencoderTiny", latent_channels=4.0), "latent_channels"),
        (_spec_json("AutoencoderTiny", act_fn="__import__"), "act_fn"),
        (_spec_json("AutoencoderTiny", scaling_factor=0), "scaling_factor"),
        (_spec_json("AutoencoderTiny", scaling_factor=float("nan")), "scaling_factor"),
        (_spec_json("AutoencoderTiny", shift_factor="x"), "shift_factor"),
        (_spec_json("AutoencoderKL", up_block_types=["CrossAttnUpBlock2D"] * 3), "up_block_types"),
        (_spec_json("AutoencoderKL", norm_num_groups=5), "multiples of 5"),
        (_spec_json("AutoencoderKL", layers_per_block=65), "layers_per_block"),
        (_spec_json("AutoencoderKL", use_post_quant_conv="no"), "use_post_quant_conv"),
    ],
)
def test_bad_specifications_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderSpec.from_json(text)


def test_too_much_enlarging_is_refused() -> None:
    with pytest.raises(ValueError, match="enlarges 512 times, at most 64"):
        DecoderSpec.from_json(
            _spec_json("AutoencoderTiny", upsampling_scaling_factor=8, decoder_block_out_channels=[6] * 4,
                       num_decoder_blocks=[1] * 4)
        )  # fmt: skip


def test_a_decoder_too_big_is_refused_before_anything_is_allocated() -> None:
    text = _spec_json("AutoencoderTiny", decoder_block_out_channels=[4096] * 3, num_decoder_blocks=[64] * 3)
    with pytest.raises(ValueError, match="parameters, at most"):
        build_decoder(DecoderSpec.from_json(text))  # 87 thousand million parameters: 350 GB if it were allocated


# --- fingerprints


def test_fingerprint_follows_weights_and_configuration(tiny: Path) -> None:
    before = autoencoder_fingerprint(str(tiny))
    assert load_autoencoder(str(tiny)).fingerprint == before
    _edit_config(tiny, scaling_factor=1.25)
    changed = autoencoder_fingerprint(str(tiny))
    weights = load_file(tiny / WEIGHTS)
    next(iter(weights.values())).mul_(1.5)
    save_file(weights, tiny / WEIGHTS)
    assert len({before, changed, autoencoder_fingerprint(str(tiny))}) == 3


def test_fingerprint_does_not_depend_on_where_the_folder_is(tiny: Path) -> None:
    moved = tiny.rename(tiny.parent / "moved")
    assert autoencoder_fingerprint("moved", moved.parent) == autoencoder_fingerprint(str(moved))


# --- finding and loading


def test_relative_names_start_from_the_base(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_autoencoder("tiny", base=tiny.parent).name == "tiny"
    assert load_autoencoder("../tiny", base=tiny).latent_shape(ClipShape(1, 1, 8)) == (1, 4, 2, 2)
    monkeypatch.chdir(tiny.parent)
    assert load_autoencoder("tiny").name == "tiny"


def test_missing_folder_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*there is no folder.*embedded-2d.*config\.json.*hub id"):
        load_autoencoder("nowhere", base=tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        autoencoder_fingerprint("../shared/weights/x", base=tmp_path)


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_folder_without_a_file(tiny: Path, missing: str) -> None:
    (tiny / missing).unlink()
    with pytest.raises(ValueError, match=f"has no {missing} .found: "):
        load_autoencoder(str(tiny))
    with pytest.raises(ValueError, match=f"has no {missing}"):
        autoencoder_fingerprint(str(tiny))


def test_pickled_weights_are_refused(tiny: Path) -> None:
    (tiny / WEIGHTS).unlink()
    torch.save(_model("AutoencoderTiny").state_dict(), tiny / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled weights \(\.bin\) are refused"):
        load_autoencoder(str(tiny))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "holds no JSON object"),
        ("[1]", "holds no JSON object"),
        ("{}", "'None'; only AutoencoderKL, AutoencoderTiny"),
        ('{"_class_name": "VQModel"}', "'VQModel'; only AutoencoderKL, AutoencoderTiny"),
    ],
)
def test_bad_configuration(tiny: Path, text: str, message: str) -> None:
    (tiny / CONFIG).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_autoencoder(str(tiny))


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


def test_weights_of_another_size_are_refused(tiny: Path) -> None:
    _edit_config(tiny, decoder_block_out_channels=[5, 5, 5])
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


def test_hub_id_is_fetched_and_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(repo: str, **options: object) -> str:
        calls.append((repo, options))
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    autoencoder = load_autoencoder("someone/tiny@v1", base=tiny)
    assert autoencoder.fingerprint == autoencoder_fingerprint(str(tiny))
    assert calls == [("someone/tiny", {"revision": "v1", "allow_patterns": [CONFIG, WEIGHTS]})]


def test_unreachable_hub_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        ValueError, match=r"'someone/tiny'.*no route.*put its config\.json and .*safetensors into .*tiny"
    ):
        load_autoencoder("someone/tiny", base=tmp_path)


def test_offline_hub_with_an_empty_cache(tmp_path: Path) -> None:
    code = "from lvdd_assets.distill.vae import load_autoencoder; load_autoencoder('someone/tiny')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "ValueError: the autoencoder 'someone/tiny' could not be had from the hub" in run.stderr


def test_import_starts_no_diffusers() -> None:
    code = "import sys, lvdd_assets.distill.vae; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- weights that exist


def _demo_clips(num_clips: int) -> np.ndarray:
    from lvdd_assets.distill.demo import MOTIONS, render_clip

    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=5_000_000 + i)[::3] for i in range(num_clips)]
    return np.stack(clips).transpose(0, 1, 4, 2, 3)


def test_embedded_autoencoder_is_small_and_sees_what_it_was_made_for() -> None:
    folder = Path(sys.modules["lvdd_assets.distill.vae"].__file__ or "").parent.parent / "weights" / EMBEDDED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    autoencoder, clips = load_autoencoder(EMBEDDED), _demo_clips(8)
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
