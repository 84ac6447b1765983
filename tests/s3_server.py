"""A server that speaks S3, in a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """URL of a bucket, while this process's environment names the server; what it was asked is in `folder/log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("wb")
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
    try:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "XDG_CACHE_HOME": str(folder / "cache"),
            }.items():
                patched.setenv(name, value)
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "the server does not come up"
                    time.sleep(0.1)
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()  # those of another server, in the same process
            s3fs.S3FileSystem().mkdir("lvdd")
            yield "s3://lvdd"
    finally:
        server.kill()
        server.wait()
        log.close()
