"""Scores by what they were measured on, so that a comparison that was cut goes on and none is trained twice.

A key is a hash of the pixels and labels trained on and tested on, of the protocol, the seed and the number of updates,
of the source of what trains, and of torch's version and the kind of device. Rows whose sets are equal share their
scores. The number of threads has no part in it: it moves figures by rounding alone.
"""

import functools
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.scores import Score
from lvdd_assets.distill.source_code import syntax

# Relevant to the figures: their source is part of every key.
_MODULES = ("networks", "architectures", "training", "evaluation")


class ScoreCache:
    """A folder of scores, one small file each; several processes may use it at once.

    Args:
        folder: made when the first score is kept. Deleting it costs time, nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Score | None:
        """The score of that key. A file that cannot be read is as good as none."""
        try:
            stored = json.loads(self._path(key).read_text(encoding="utf-8"))
            return Score(**{**stored, "confusion": np.array(stored["confusion"], dtype=np.int64)})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, score: Score) -> None:
        """Keeps a score; a reader sees all of it or nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**asdict(score), "confusion": score.confusion.tolist()})
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def digest(clips: TensorDataset) -> str:
    """Hash of a set's shapes, types, pixels and labels."""
    found = hashlib.sha256()
    for tensor in clips.tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(np.ascontiguousarray(tensor.numpy()).data)
    return found.hexdigest()


def score_key(
    train: str, test: str, protocol: Protocol, *, num_classes: int, seed: int, num_updates: int, device: str
) -> str:
    """Key of a score; `train` and `test` are digests."""
    settings = {name: value for name, value in asdict(protocol).items() if name not in ("seeds", "epochs")}
    facts = {
        "train": train,
        "test": test,
        "protocol": settings,
        "classes": num_classes,
        "seed": seed,
        "updates": num_updates,
        "device": torch.device(device).type,
        "torch": torch.__version__,
        "source": _source(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _source() -> str:
    return hashlib.sha256("".join(syntax(f"lvdd_assets.distill.{name}") for name in _MODULES).encode()).hexdigest()
