"""Tasks for workers of a cluster. Nothing of `conftest` is imported, which would give them a registry."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdd_assets.steps import Task
from tests.counting_chain import compute_a


def compute_with_pid(task: Task) -> None:
    """Step a, and a file that tells which process made it where."""
    time.sleep(0.1)
    folder = task.payload.parent / "made"
    folder.mkdir(exist_ok=True)
    (folder / task.class_name).write_text(f"{os.getpid()} {Path.cwd()} {'LVDD_DATASETS' in os.environ}")
    compute_a(task)


def compute_beside_a_killer(task: Task) -> None:
    """Step a, slowly the first time that c1 is made, so that its worker can be killed meanwhile."""
    begun = task.payload.parent / "begun"
    if task.class_name == "c1" and not begun.exists():
        begun.write_text(str(os.getpid()))
        time.sleep(60)
    compute_a(task)


@dataclass
class Held:
    """An answer that nobody gets for a minute, and a file that tells that somebody asks for it."""

    asked: Path

    def __reduce__(self) -> tuple[Any, ...]:
        self.asked.touch()
        time.sleep(60)
        return Held, (self.asked,)


def answer_held(compute: Callable[[Task], None], task: Task) -> Held | None:
    """Runs a task; c0's answer is `Held`, and comes when c1 is begun."""
    folder = task.payload.parent
    if task.class_name != "c0":
        compute(task)
        return None
    for _ in range(600):
        if (folder / "begun").exists():
            break
        time.sleep(0.1)
    return Held(folder / "asked")
