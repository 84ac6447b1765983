"""What a stage takes: seconds, and the most memory while it ran.

Memory is the peak of the process's resident set as Linux counts it, which is set back at the start of a stage; on a
GPU also torch's peak of allocated memory. Where the system does not tell, the figure is None: not measured, never
guessed. Both figures are the whole process's, whatever its threads do meanwhile; memory of child processes is not in
them.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets VmHWM back to what is resident now


@dataclass
class Stage:
    """A stage of work; its figures are there once it has ended, by an error too.

    Attributes:
        name: what it does.
        seconds: wall time.
        start_bytes: resident memory of the process when it began; None where that is not known.
        peak_bytes: most resident memory of the process while it ran; None where that cannot be measured.
        device_peak_bytes: most memory that torch had allocated on the GPU; None without one.
    """

    name: str
    seconds: float = 0.0
    start_bytes: int | None = None
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None

    @property
    def grown_bytes(self) -> int | None:
        """How far the peak lies above the start; None where it is not known."""
        if self.peak_bytes is None or self.start_bytes is None:
            return None
        return max(0, self.peak_bytes - self.start_bytes)


_running: list[Stage] = []


@contextmanager
def measure(name: str) -> Iterator[Stage]:
    """Measures what runs inside; stages may lie within each other, and an outer one has the peak of its inner ones.

    Args:
        name: what the stage does.
    """
    stage = Stage(name)
    _note_peak()  # of the stages around this one, before it is set back
    can_measure = _reset_peak()
    stage.start_bytes = _status_bytes("VmRSS") if can_measure else None
    _reset_device_peak()
    _running.append(stage)
    started = time.perf_counter()
    try:
        yield stage
    finally:
        stage.seconds = time.perf_counter() - started
        if can_measure:
            _note_peak()
        _note_device_peak()
        _running.remove(stage)


def _note_peak() -> None:
    """What has been the peak since it was last set back counts for all stages that run."""
    if not _running:
        return
    peak = _status_bytes("VmHWM")
    for stage in _running:
        if peak is not None and stage.start_bytes is not None:
            stage.peak_bytes = max(stage.peak_bytes or 0, peak)


def _reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return _status_bytes("VmHWM") is not None


def _status_bytes(field: str) -> int | None:
    """A line of the process's status in bytes; None where there is none."""
    try:
        text = _STATUS.read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _cuda() -> Any:
    """torch.cuda where it is in use already; a stage that needs no GPU does not start one."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def _reset_device_peak() -> None:
    if (cuda := _cuda()) is not None:
        _note_device_peak()
        cuda.reset_peak_memory_stats()


def _note_device_peak() -> None:
    if (cuda := _cuda()) is not None:
        for stage in _running:
            stage.device_peak_bytes = max(stage.device_peak_bytes or 0, int(cuda.max_memory_allocated()))
