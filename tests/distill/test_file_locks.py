"""`file_locks`: one at a time among processes, and a killed holder holds nothing."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lvdd_assets.distill.file_locks import locked

pytest.importorskip("fcntl")


def _hold(path: Path, pipe: Connection) -> None:
    with locked(path):
        pipe.send("held")
        pipe.recv()


def _append(path: Path, log: Path) -> None:
    for _ in range(20):
        with locked(path):
            text = log.read_text()
            log.write_text(text + f"{os.getpid()}\n")


def test_nobody_comes_between_reading_and_writing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(tmp_path / "new" / "lock", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert len(log.read_text().splitlines()) == 60


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "lock", there))
    holder.start()
    assert here.recv() == "held"
    import fcntl

    with (tmp_path / "lock").open("ab") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(60)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
