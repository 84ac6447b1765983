"""`vae_folders`: what a name stands for, and what is said when it stands for nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.vae_folders import download, find_autoencoder
from tests.distill.autoencoders import CONFIG, WEIGHTS, small_model

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
        find_autoencoder("../shared/weights/x", base=tmp_path).fingerprint()


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_folder_without_a_file(tiny: Path, missing: str) -> None:
    (tiny / missing).unlink()
    with pytest.raises(ValueError, match=f"has no {missing} .found: "):
        load_autoencoder(str(tiny))
    with pytest.raises(ValueError, match=f"has no {missing}"):
        find_autoencoder(str(tiny)).fingerprint()


def test_pickled_weights_are_refused(tiny: Path) -> None:
    (tiny / WEIGHTS).unlink()
    torch.save(small_model("AutoencoderTiny").state_dict(), tiny / "diffusion_pytorch_model.bin")
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


def test_hub_id_is_looked_up_in_the_cache_and_never_downloaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def find(repo: str, **options: object) -> str:
        calls.append((repo, options))
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", find)
    autoencoder = load_autoencoder("someone/tiny@v1", base=tiny)
    assert autoencoder.fingerprint == find_autoencoder(str(tiny)).fingerprint()
    assert calls == [("someone/tiny", {"revision": "v1", "local_files_only": True})]


def test_hub_id_that_was_not_downloaded(tmp_path: Path) -> None:
    code = "from lvdd_assets.distill.vae import load_autoencoder; load_autoencoder('someone/tiny')"
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    message = run.stderr.splitlines()[-1]
    assert message.startswith("ValueError: the autoencoder 'someone/tiny' is not on this machine")
    assert "`lvdd fetch someone/tiny` downloads it; without a network, put its config.json" in message
    assert str(tmp_path / "someone" / "tiny") in message


def test_download_asks_the_hub_for_the_two_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def fetch(repo: str, **options: object) -> str:
        calls.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert download("someone/tiny@v1") == tmp_path
    assert calls == [("someone/tiny", {"revision": "v1", "allow_patterns": [CONFIG, WEIGHTS, "README.md"]})]


def test_unreachable_hub_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ValueError, match=r"'someone/tiny'.*no route.*copy its config\.json and .*safetensors into a"):
        download("someone/tiny")


def test_download_of_what_is_no_hub_id() -> None:
    with pytest.raises(ValueError, match="'tiny' is no hub id; expected organisation/name"):
        download("tiny")


def test_a_folder_cannot_name_code_to_run(tiny: Path) -> None:
    (tiny / CONFIG).write_text('{"_class_name": "os:system"}')
    with pytest.raises(ValueError, match=r"must stand in the registry, as vae: os:system@tiny"):
        load_autoencoder(str(tiny))
