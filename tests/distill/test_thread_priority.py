"""Threads keep the priority they had, whatever a library does to them."""

import os
import sys
import threading

import pytest

from lvdd_assets.distill.thread_priority import keep_priority

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives threads a policy")


def _policy(thread: int = 0) -> int:
    return os.sched_getscheduler(thread)


def _become_batch() -> None:
    """A policy that everyone may choose, unlike a real-time one."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def test_this_thread_and_those_that_came_are_as_this_one_was_and_others_are_let_be() -> None:
    before, stop = _policy(), threading.Event()
    assert before != os.SCHED_BATCH

    def wait(own: bool) -> None:
        if own:
            _become_batch()
        ready.release()
        stop.wait()

    ready = threading.Semaphore(0)
    chosen = threading.Thread(target=wait, args=(True,))
    inheriting = threading.Thread(target=wait, args=(False,))
    try:
        chosen.start()
        ready.acquire()
        with keep_priority():
            _become_batch()
            inheriting.start()
            ready.acquire()
            assert inheriting.native_id is not None
            assert _policy() == _policy(inheriting.native_id) == os.SCHED_BATCH
        assert _policy() == _policy(inheriting.native_id) == before
        assert _policy(chosen.native_id or 0) == os.SCHED_BATCH
    finally:
        stop.set()
        os.sched_setscheduler(0, before, os.sched_param(0))


def test_also_where_the_body_fails() -> None:
    before = _policy()

    def fail() -> None:
        _become_batch()
        raise KeyError

    with pytest.raises(KeyError), keep_priority():
        fail()
    assert _policy() == before
