import signal
import subprocess
import sys
import time

import psutil
import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["inspect"], ["plan"], ["evaluate"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 150


def test_an_unknown_dataset_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["run", "nothing"])
    assert result.exit_code == 1
    assert "unknown dataset 'nothing'" in result.output
    assert "Traceback" not in result.output


LOST_IN_A_DESTRUCTOR = """
import os, signal, time
import click
from lvdd_assets.cli.terminal import InterruptibleGroup

class Told:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # where the handler raises, and nothing may be raised

@click.group(cls=InterruptibleGroup)
def main():
    pass

@main.command()
def work():
    told = Told()
    del told
    time.sleep(30)
    print("went on")

main()
"""


def test_a_signal_that_arrives_where_nothing_may_be_raised_is_not_lost() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOST_IN_A_DESTRUCTOR, "work"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "interrupted; what was finished is stored, the next run goes on from there\n"


SLOW_TO_LEAVE = """
import atexit, signal, subprocess, sys, time
import click
from lvdd_assets.cli.terminal import InterruptibleGroup

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored

@click.group(cls=InterruptibleGroup)
def main():
    pass

@main.command()
@click.argument("seconds", type=float)
def work(seconds):
    atexit.register(time.sleep, seconds)  # as a pool that closes
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(["sleep", "60"], stdout=quiet, stderr=quiet, start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(60)

main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_command_ends_with_a_sentence(number: signal.Signals) -> None:
    said, code, child, _ = _interrupt(0.0, number)
    child.kill()
    assert said == "interrupted; what was finished is stored, the next run goes on from there\n"
    assert code == 130


def test_a_second_ctrl_c_does_not_wait_and_leaves_no_process() -> None:
    said, code, child, seconds = _interrupt(60.0, signal.SIGINT, signal.SIGINT)
    assert said == "interrupted; what was finished is stored, the next run goes on from there\n"
    assert code == 130
    assert seconds < 60
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE  # a container may have nobody who reaps


def _interrupt(closing: float, *numbers: signal.Signals) -> tuple[str, int, psutil.Process, float]:
    """What a command said, its exit code, its child, and how long it took to leave after the last of some signals."""
    words = [sys.executable, "-c", SLOW_TO_LEAVE, "work", str(closing)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        child, said = psutil.Process(int(process.stdout.readline())), ""
        for number in numbers:
            process.send_signal(number)
            start = time.monotonic()
            said += process.stderr.readline()
        said += process.stderr.read()
        return said, process.wait(timeout=60), child, time.monotonic() - start
