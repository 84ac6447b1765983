"""A shell in which `lvdd`, `dagster` and `python` start at once: they are forked from a server that has imported all
that takes seconds. So the documentation's blocks run as they stand, in bash, in a time that a test has.

The server is this module run as a program; `Shell` starts it, and ends it. What a command writes, reads and returns
goes where the shell's own would.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

_CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"!"], [0, 1, 2])
server.sendall(json.dumps([[os.path.basename(sys.argv[0]), *sys.argv[1:]], os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(ord(server.recv(1) or bytes([70])))
"""

COMMANDS = ("dagster", "lvdd", "python")


class Shell:
    """Bash with such commands.

    Args:
        folder: where the commands and the server's socket are put; its path must be short, as those of sockets are.
    """

    def __init__(self, folder: Path) -> None:
        address, self.bin = folder / "s", folder / "bin"
        self.bin.mkdir()
        for name in COMMANDS:
            client = self.bin / name
            client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
            client.chmod(0o755)
        command = [sys.executable, "-m", __name__, str(address)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def run(
        self, script: str, *, folder: Path, program: Sequence[str] = ("bash", "-euo", "pipefail")
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script in a folder, which is its home as well; what it prints is in `stdout`, errors too."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        environment = {
            **kept,
            "HOME": str(folder / "home"),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "LVDD_WORKERS": "1",
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [*program, "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def close(self) -> None:
        """Ends the server."""
        self._server.terminate()
        self._server.wait()


def _serve(address: str) -> None:
    """Forks a process for each command, for ever."""
    _import_what_takes_long()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(client)
        client.close()


def _import_what_takes_long() -> None:
    """Not the modules that read the registry when they are imported: each command has its own."""
    import pkgutil

    import dagster._cli  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch.utils.data  # noqa: F401
    from diffusers import AutoencoderTiny  # noqa: F401

    from lvdd_assets import cli, distill  # noqa: F401
    from lvdd_assets.distill import protocols, utility

    for module in pkgutil.iter_modules(distill.__path__, "lvdd_assets.distill."):
        __import__(module.name)
    # Networks are trained for one update instead of 150: what is tested are commands, not what a release is worth.
    protocols._MIN_EPOCHS, protocols._MIN_UPDATES = 1, 1
    utility.MOST_UPDATES = 1


def _answer(client: socket.socket) -> None:
    """Runs what a client asks for, with its folder, environment and files, and never returns."""
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    asked = b""
    while part := client.recv(1 << 16):
        asked += part
    words, folder, environment = json.loads(asked)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = _code_of(words)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    client.sendall(bytes([code]))
    os._exit(code)


def _code_of(words: list[str]) -> int:
    """What a command ends with."""
    try:
        _call(words)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _call(words: list[str]) -> None:
    sys.argv = words
    if words[0] == "lvdd":
        from lvdd_assets.__main__ import main

        main()
    elif words[0] == "dagster":
        from dagster._cli import main as dagster

        dagster()
    elif words[1] == "-c":
        sys.argv = words[1:]
        exec(compile(words[2], "<documentation>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
