"""`devices`: what there is to compute on, and in which number format it computes fast."""

import pytest
import torch

from lvdd_assets.distill import devices


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", torch.bfloat16),
        ("flags\t\t: fpu amx_bf16\n", torch.bfloat16),
        ("flags\t\t: fpu avx512f avx512_bf16x\n", torch.float32),
        ("Features\t: fp asimd bf16\n", torch.float32),
        (None, torch.float32),
    ],
    ids=["avx512", "amx", "neither", "another processor", "another system"],
)
def test_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, expected: torch.dtype
) -> None:
    def read(_self: object, **_: object) -> str:
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(devices.Path, "read_text", read)
    assert devices.precision_for("cpu") == expected


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.find_device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.find_device() == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.find_device() == "cpu"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'.*cpu, cuda, mps"),
        ("cuda:x", "unknown device"),
        ("cuda:99", "no device 'cuda:99'.*cpu"),
    ],
)
def test_a_device_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        devices.find_device(name)
