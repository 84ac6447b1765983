"""Where tensors are computed and in which number format."""

from pathlib import Path

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
_FLAGS_OF_FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def find_device(name: str = "auto") -> str:
    """The device of that name, e.g. `cuda:1`; "auto" is a GPU where there is one, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    kind, _, index = name.partition(":")
    if kind not in available or (index and not index.isdecimal()):
        raise ValueError(f"unknown device {name!r}: expected one of {', '.join(DEVICES)}, or e.g. cuda:1")
    if not available[kind] or (kind == "cuda" and int(index or 0) >= torch.cuda.device_count()):
        found = ", ".join(kind for kind, there in available.items() if there)
        raise ValueError(f"no device {name!r} here; found: {found}. Use auto to take what there is")
    return name


def precision_for(device: str) -> torch.dtype:
    """Number format of the convolutions: bfloat16 where the device computes in it, float32 elsewhere.

    On a CPU without bfloat16 instructions torch emulates them, which is slower than float32.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return torch.float32
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    return torch.bfloat16 if _FLAGS_OF_FAST_BFLOAT16 & set(flags) else torch.float32
