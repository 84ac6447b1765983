import dataclasses
import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from tests.cli.entering import enter
from tests.conftest import Chain, MakeChain


def _datasets(chain: Chain, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["datasets", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_lvdd_datasets_counts_what_is_found_missing_and_excluded(
    make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain(more="max_lost_share: 1")
    (chain.videos / "train/grow/grow_000.mp4").write_bytes(b"")
    line = _datasets(chain, monkeypatch).splitlines()[1]
    assert line.split() == ["tiny", "*", "folders", "folders", "2", "10", "+", "4", "–", "0", "0", "–"]
    assert chain.materialize("raw_clips", partition="tiny/grow").success
    assert _datasets(chain, monkeypatch).splitlines()[1].endswith(" 1 (of 1 classes)")
    (row,) = json.loads(_datasets(chain, monkeypatch, "--json"))
    assert (row["num_train"], row["num_test"], row["num_excluded"], row["num_decoded"]) == (10, 4, 1, 1)


def test_lvdd_datasets_says_what_is_absent(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = make_chain(root="nowhere")
    monkeypatch.setenv("LVDD_DATASETS", str(chain.workspace.registry))
    result = CliRunner().invoke(main, ["datasets"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:4] == ["tiny", "*", "folders", "folders"]
    assert "no folder" in result.stderr


def test_lvdd_fetch_says_terms_and_steps(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "ssv2", "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for said in ("licensed by Qualcomm", "accept the licence", f"{tmp_path}", "layout: ssv2"):
        assert said in result.output


def test_lvdd_fetch_downloads_nothing_before_the_terms_are_accepted(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "hmdb51", "--to", str(tmp_path)])
    assert result.exit_code == 2
    assert "CC BY 4.0" in result.output
    assert "pass --yes" in result.output
    assert list(tmp_path.iterdir()) == []
    unknown = CliRunner().invoke(main, ["fetch", "hmdb52"])
    assert unknown.exit_code == 2
    assert "'hmdb52' is none of ucf101, miniucf, hmdb51" in unknown.output


def test_lvdd_fetch_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lvdd_assets.distill import sources

    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "lists.csv").write_text("label,youtube_id\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        archive = sources.Archive("lists.csv", f"http://127.0.0.1:{server.server_port}/lists.csv")
        source = dataclasses.replace(sources.SOURCES["kinetics400"], archives=(archive,))
        monkeypatch.setitem(sources.SOURCES, "kinetics400", source)
        result = CliRunner().invoke(main, ["fetch", "kinetics400", "--yes", "--to", str(tmp_path / "k400")])
        server.shutdown()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "k400" / "lists.csv").read_text() == "label,youtube_id\n"
    assert "the publisher gives no checksum" in result.output
    assert "layout: kinetics400" in result.output


def test_lvdd_train_vae_adapts_and_says_how_to_use_it(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = make_chain()
    enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["train-vae", "tiny", "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "2 updates on 9 train clips of tiny" in result.output
    assert "PSNR on 1 train clips kept apart" in result.output
    assert "vae: data/autoencoders/tiny" in result.output
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("vae: embedded-2d", "vae: data/autoencoders/tiny"))
    assert chain.materialize("latents", partition="tiny/grow").success


def test_lvdd_train_vae_takes_one_length(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVDD_DATASETS", str(make_chain().workspace.registry))
    result = CliRunner().invoke(main, ["train-vae", "tiny", "--steps", "2", "--minutes", "1"])
    assert result.exit_code == 2
    assert "--minutes and --steps exclude each other" in result.output


def test_lvdd_fetch_takes_an_autoencoder_by_its_hub_id(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_args, **_options: str(tiny))
    result = CliRunner().invoke(main, ["fetch", "someone/tiny@v1"])
    assert result.exit_code == 0, result.output
    assert "AutoencoderTiny; its terms: https://huggingface.co/someone/tiny" in result.output
    assert "vae: someone/tiny@v1" in result.output


def test_lvdd_fetch_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    result = CliRunner().invoke(main, ["fetch", "someone/tiny"])
    assert result.exit_code == 1
    assert "Error: the autoencoder 'someone/tiny' could not be had from the hub" in result.output
