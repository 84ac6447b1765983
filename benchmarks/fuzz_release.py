"""Fuzzes what reads a stranger's bytes, by coverage: the loader of releases, and the entropy decoder by itself.

    pip install -e '.[fuzz]'
    OMP_NUM_THREADS=1 python benchmarks/fuzz_release.py --minutes 30 [--target release] [--target coefficients]

Atheris (libFuzzer for Python) mutates seeds that the harness makes of real data, and keeps what reaches new code of
this package, of zipfile and of json. A `release` input is the parts of a file (attributes, array headers, chunks),
which are zipped with a right CRC, or, now and then, the zip itself; it is mutated part by part, as bit flips alone die
at the CRC. What opens is read to the end: classes, decoder, clips, soft labels, ledger. A `coefficients` input is a
shape and bytes; what decodes is encoded again, and must decode to the same integers.

A finding is any exception but the one that is promised (ReleaseError; ValueError), a result of another shape than
announced, a crash of native code, an input that takes over 60 s, or 1 GiB more than
before. Video is decoded by FFmpeg's native code in the fuzzed process; the fuzzed process is a child, so that a crash
there is one finding more and the run goes on. Inputs that led to findings are kept under --folder. Rows of the table:
inputs executed, inputs a second, edges of instrumented code reached by the seeds and at the end, inputs kept, findings.
"""

import argparse
import contextlib
import hashlib
import io
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGETS = ("release", "coefficients")
SECONDS_OF_ONE, MEGABYTES = 60, 1024
LONGEST = 1 << 17
# Atheris itself leaks some 30 kB an input, so that a child is followed by another after a while.
SECONDS_OF_A_CHILD, MEGABYTES_OF_A_CHILD = 180, 8192


@dataclass
class Row:
    """What the runs of one target came to."""

    executions: int = 0
    seconds: float = 0.0
    edges: list[int] = field(default_factory=list)
    corpus: int = 0
    findings: set[str] = field(default_factory=set)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="for each target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given again; by default both")
    parser.add_argument("--folder", type=Path, help="where inputs and findings are kept; by default a temporary one")
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args()
    if known.child:
        _fuzz(known.child, known.folder, rest)
        return
    folder = known.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    rows = {}
    for target in known.target or TARGETS:
        rows[target] = _run(target, folder / target, known.minutes * 60)
    print(f"\n{'target':<14}{'executions':>12}{'exec/s':>9}{'edges':>16}{'inputs kept':>13}{'findings':>10}")
    for target, row in rows.items():
        edges = f"{row.edges[0]} -> {row.edges[-1]}" if row.edges else "-"
        rate = row.executions / max(row.seconds, 1e-9)
        print(f"{target:<14}{row.executions:>12}{rate:>9.1f}{edges:>16}{row.corpus:>13}{len(row.findings):>10}")
    for target, row in rows.items():
        for finding in sorted(row.findings):
            print(f"{target}: {finding}")
    print(f"inputs and findings are in {folder}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def _run(target: str, folder: Path, seconds: float) -> Row:
    """Runs children until the time is up; one that a crash, a hang or too much memory ended is followed by another."""
    corpus, findings = folder / "corpus", folder / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    if not any(corpus.iterdir()):
        for seed in _seeds(target):
            (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    row, end = Row(), time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0:
        start = time.monotonic()
        options = [
            f"-max_total_time={min(left, SECONDS_OF_A_CHILD)}",
            f"-timeout={SECONDS_OF_ONE}",
            f"-rss_limit_mb={MEGABYTES_OF_A_CHILD}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={findings}/",
            "-len_control=0",
            "-print_final_stats=1",
        ]
        command = [sys.executable, __file__, "--child", target, "--folder", str(folder), *options, str(corpus)]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        log = result.stderr
        (folder / f"log-{int(time.time())}.txt").write_text(log)
        row.seconds += time.monotonic() - start
        row.executions += max((int(n) for n in re.findall(r"^#(\d+)\s", log, re.MULTILINE)), default=0)
        row.edges += [int(n) for n in re.findall(r"cov: (\d+)", log)]
        if not re.search(r"^#\d+\s+INITED", log, re.MULTILINE):
            raise SystemExit(f"the child of target {target} did not start:\n{log[-3000:]}")
        if result.returncode:
            row.findings.add(f"the process ended ({result.returncode}): {_reason(log)}")
    row.corpus = sum(1 for _ in corpus.iterdir())
    row.findings |= {path.read_text().splitlines()[0] for path in findings.glob("*.txt")}
    return row


def _reason(log: str) -> str:
    lines = [line for line in log.splitlines() if "ERROR" in line or "Error" in line]
    return lines[0][:200] if lines else log[-200:]


def _seeds(target: str) -> list[bytes]:
    if target == "coefficients":
        return _coefficient_seeds()
    from tests.distill import release_mutations

    return release_mutations.seeds()


def _fuzz(target: str, folder: Path, options: Sequence[str]) -> None:
    with atheris.instrument_imports(include=["lvdd_assets", "zipfile", "json"]):
        from lvdd_assets.distill import release  # noqa: F401  # every module on the way

    if target == "coefficients":
        test, mutate = _test_coefficients, None
    else:
        test, mutate = _release_target()
    from tests.distill.release_mutations import memory_limit

    keep = _Keeper(folder / "findings", test, lambda: memory_limit(MEGABYTES << 20))
    for seed in _seeds(target):  # what is imported late is, so that its time and memory are not an input's
        test(seed)
    arguments = [sys.argv[0], *options]
    atheris.Setup(arguments, keep, custom_mutator=mutate) if mutate else atheris.Setup(arguments, keep)
    atheris.Fuzz()


class _Keeper:
    """Runs a test and keeps each different failure once, so that one does not end the run."""

    def __init__(
        self, folder: Path, test: Callable[[bytes], object], limit: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._folder, self._test, self._limit = folder, test, limit

    def __call__(self, data: bytes) -> None:
        try:
            with self._limit(), contextlib.redirect_stdout(io.StringIO()):
                self._test(data)
        except BaseException as error:  # Rust's panics are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            name = hashlib.sha1(f"{type(error).__name__} {place}".encode()).hexdigest()[:12]
            if not (self._folder / f"{name}.txt").exists():
                (self._folder / name).write_bytes(data)
                text = f"{type(error).__name__} at {place}: {str(error)[:200]!r}\n" + traceback.format_exc()
                (self._folder / f"{name}.txt").write_text(text)


def _coefficient_seeds() -> list[bytes]:
    import numpy as np

    from lvdd_assets.distill import coefficient_coding

    generator, seeds = np.random.default_rng(0), []
    for shape in [(1, 1, 1, 1, 1), (3, 2, 4, 4, 4), (8, 4, 4, 3, 3), (2, 1, 2, 16, 16), (40, 2, 1, 2, 2)]:
        for scale in (0.0, 0.3, 3.0, 1e3, 1e8):
            values = np.rint(generator.laplace(size=shape) * scale).clip(-(2**31), 2**31 - 1).astype(np.int64)
            head = b"".join(size.to_bytes(2, "little") for size in shape)
            seeds.append(head + coefficient_coding.encode(values))
            seeds.append(head + coefficient_coding.encode(values + 5 * (scale > 0)))
    return seeds


def _test_coefficients(data: bytes) -> None:
    import numpy as np

    from lvdd_assets.distill import coefficient_coding

    shape = tuple(int.from_bytes(data[2 * axis : 2 * axis + 2], "little") for axis in range(5))
    count = math.prod(shape)
    if 1 << 16 < count <= coefficient_coding.MOST_SYMBOLS_PER_BYTE * len(data):  # allowed, and slow
        return
    try:
        values = coefficient_coding.decode(data[10:], shape)
    except ValueError:
        return
    assert values.shape == shape, f"shape {values.shape}"
    assert values.dtype == np.int32, f"type {values.dtype}"
    again = coefficient_coding.decode(coefficient_coding.encode(values), shape)
    assert np.array_equal(again, values), "values do not come back"


def _release_target() -> tuple[Callable[[bytes], object], Callable[[bytes, int, int], bytes]]:
    import random

    from tests.distill import release_mutations

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = release_mutations.mutate(bytes(data), random.Random(seed), atheris.Mutate)
        return changed if len(changed) <= max_size else bytes(data)

    return release_mutations.check, mutate


if __name__ == "__main__":
    main()
