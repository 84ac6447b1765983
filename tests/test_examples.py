"""The examples run, and learn: a few steps on a tiny release."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "distill" / "golden"


def _run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")


def test_plain_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, release = tmp_path / "classifier.pt", GOLDEN / "release-v3.zarr.zip"
    _run("train.py", monkeypatch, str(release), "--epochs", "6", "--device", "cpu", "--out", str(out))
    text = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"loss ([\d.]+)", text)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    saved = torch.load(out, weights_only=True)
    assert len(saved["classes"]) == saved["weights"]["layers.14.bias"].shape[0] == 9


def test_lightning_with_soft_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--epochs", "3", "--accelerator", "cpu", "--cache", str(tmp_path / "clips"))
    _run("train_lightning.py", monkeypatch, str(GOLDEN / "release-v4.zarr.zip"), *arguments)
    assert re.search(r"loss \d\.\d+ after 3 steps", capsys.readouterr().out)
    assert list((tmp_path / "clips").glob("*/*.npy"))
