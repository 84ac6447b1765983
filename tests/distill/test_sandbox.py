"""Whatever native code does in a child, one item is lost and the others are not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from lvdd_assets.distill.sandbox import Sandbox, SandboxError

GIB = 2**30
REPOSITORY = Path(__file__).parents[2]


class OddError(ValueError):
    """An error whose pickle cannot be rebuilt."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one} {two}")


def work(item: object) -> object:
    """Does what the item says; notes each call in a file where one is named."""
    if isinstance(item, tuple):
        folder, item = item
        with (Path(folder) / str(item)).open("a") as file:
            file.write("called\n")
    match item:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(1000)
        case "memory":
            return np.ones(2 * GIB, np.uint8)
        case "value error":
            raise UnicodeError("a short reason")
        case "odd error":
            raise OddError(1, 2)
        case "type error":
            raise TypeError("a slip")
        case "large":
            return np.arange(5_000_000, dtype=np.int32)
        case "main":
            return [name for name in ("pytest", "dagster", "torch") if name in sys.modules]
        case "pid":
            return os.getpid()
        case "garbage":
            # A ring, which no count of references frees.
            ring = [np.ones(GIB // 4, np.uint8)]
            ring.append(ring)  # type: ignore[arg-type]
            return "left behind"
    return item


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(work, seconds=30, memory_bytes=GIB) as sandbox:
        yield sandbox


def test_results_come_in_order(sandbox: Sandbox) -> None:
    assert list(sandbox.map(range(40), num_processes=3)) == [(item, item) for item in range(40)]


def test_nothing_to_do_starts_nothing(sandbox: Sandbox) -> None:
    before = psutil.Process().children(recursive=True)
    assert list(sandbox.map([], num_processes=3)) == []
    assert psutil.Process().children(recursive=True) == before


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("crash", "the process crashed (SIGSEGV)"),
        ("abort", "the process crashed (SIGABRT)"),
        ("exit", "the process ended (exit 3)"),
        ("memory", "needs more than 1 GiB of memory"),
        ("type error", "TypeError: a slip"),
        ("odd error", "OddError: odd 1 2"),
    ],
)
def test_what_goes_wrong_costs_one_item(sandbox: Sandbox, tmp_path: Path, item: str, reason: str) -> None:
    items = [(tmp_path, name) for name in ("one", "two", item, "three", "four")]
    results = [result for _, result in sandbox.map(items, num_processes=2)]
    assert isinstance(results[2], SandboxError)
    assert str(results[2]) == reason
    assert [results[index] for index in (0, 1, 3, 4)] == ["one", "two", "three", "four"]
    # Nothing was lost, nothing done twice.
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "called\n" for _, name in items}


def test_what_an_item_leaves_behind_is_gone_before_the_next(sandbox: Sandbox) -> None:
    """A quarter of the memory that a child may have, twelve times."""
    assert [result for _, result in sandbox.map(["garbage"] * 12)] == ["left behind"] * 12


def test_a_hanging_item_is_given_up() -> None:
    with Sandbox(work, seconds=2, memory_bytes=GIB) as sandbox:
        results = [result for _, result in sandbox.map(["one", "hang", "two"])]
    assert str(results[1]) == "no result after 2 s"
    assert (results[0], results[2]) == ("one", "two")


def test_an_error_the_function_means_arrives_as_it_is(sandbox: Sandbox) -> None:
    ((_, error),) = sandbox.map(["value error"])
    assert type(error) is UnicodeError
    assert str(error) == "a short reason"


def test_large_arrays_arrive_whole_and_can_be_written_to(sandbox: Sandbox) -> None:
    ((_, array),) = sandbox.map(["large"])
    np.testing.assert_array_equal(array, np.arange(5_000_000))
    array[0] = 1


def test_items_are_taken_only_as_they_are_needed(sandbox: Sandbox) -> None:
    taken = []

    def items() -> Iterator[int]:
        for index in range(100):
            taken.append(index)
            yield index

    results = sandbox.map(items(), num_processes=2)
    for done in range(20):
        assert next(results) == (done, done)
        assert len(taken) <= done + 1 + 4
    results.close()


def test_children_are_kept_from_map_to_map_and_ended_at_the_close() -> None:
    with Sandbox(work, seconds=30, memory_bytes=GIB) as sandbox:
        first = {result for _, result in sandbox.map(["pid"] * 4)}
        assert {result for _, result in sandbox.map(["pid"] * 4)} == first
        assert len(first) == 1
    assert not any(psutil.pid_exists(pid) for pid in first)
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


def test_the_parent_s_main_module_is_not_imported(sandbox: Sandbox) -> None:
    """It may be the command line of Dagster, which takes seconds."""
    code = textwrap.dedent(
        """
        import sys, time
        if __name__ != "__main__":
            raise RuntimeError("imported again")
        from lvdd_assets.distill.sandbox import Sandbox
        from lvdd_assets.distill.catalog import parse_bytes
        with Sandbox(parse_bytes, seconds=30, memory_bytes=2**30) as sandbox:
            print(list(sandbox.map(["2kB"])))
        """
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert run.stdout.strip() == "[('2kB', 2000)]"
    assert next(sandbox.map(["main"]))[1] == ["pytest"]  # because this very module imports it


def _in_daemon(queue: "multiprocessing.Queue[object]") -> None:
    with Sandbox(work, seconds=30, memory_bytes=GIB) as sandbox:
        queue.put(list(sandbox.map([1, 2])))


def test_works_in_a_daemonic_process() -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_in_daemon, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == [(1, 1), (2, 2)]
    process.join()


@pytest.mark.parametrize("item", ["one", "hang"])
def test_children_end_with_a_killed_parent(tmp_path: Path, item: str) -> None:
    code = textwrap.dedent(
        f"""
        import time
        from lvdd_assets.distill.sandbox import Sandbox
        from tests.distill.test_sandbox import work
        sandbox = Sandbox(work, seconds=600, memory_bytes=2**30)
        for item, pid in sandbox.map(["pid", {item!r}, {item!r}]):
            if item == "pid":
                print(pid, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def test_giving_up_half_way_ends_what_is_at_work() -> None:
    before = psutil.Process().children()
    sandbox = Sandbox(work, seconds=600, memory_bytes=GIB)
    results = sandbox.map(["pid", "hang", "hang"], num_processes=2)
    start = time.monotonic()
    next(results)
    results.close()
    assert time.monotonic() - start < 60
    assert [child for child in psutil.Process().children() if child not in before] == []
    assert list(sandbox.map(["again"])) == [("again", "again")]
    sandbox.close()
