"""What lies outside the process: the registry, the data root, the workers. Read from the environment in this one place.

A knob of a run is a `dg.Config` beside its asset, never a resource.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lvdd_assets.distill.catalog import Catalog
from lvdd_assets.distill.places import Place, is_local, parse_place
from lvdd_assets.distill.registry import load_catalog


@dataclass(frozen=True)
class Workspace:
    """Where a pipeline reads and writes, and with how many hands.

    Attributes:
        registry: the file that names the datasets (`LVDD_DATASETS`, default `data/datasets.yaml`).
        data_root: folder of all stores, or the URL of one on an object store (`LVDD_DATA_ROOT`, default `data`).
        num_workers: processes for the fan-out over classes (`LVDD_WORKERS`, default the number of cores).
        device: where tensors are computed (`LVDD_DEVICE`): auto, cpu, cuda, cuda:1, mps. Default auto: a GPU if any.
        scheduler: address of a running Dask scheduler (`LVDD_DASK_SCHEDULER`); empty for a pool on this machine.
    """

    registry: Path
    data_root: Place
    num_workers: int = 1
    scheduler: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        if is_local(self.data_root):  # other processes may have another current folder
            object.__setattr__(self, "data_root", Path(str(self.data_root)).absolute())
        if self.num_workers < 1:
            raise ValueError(f"LVDD_WORKERS must be at least 1, got {self.num_workers}")

    def catalog(self) -> Catalog:
        """The registry, read anew."""
        return load_catalog(self.registry)


_registry_wanted = True


def do_without_registry() -> None:
    """Says that this process computes tasks that others plan: as a worker of a cluster, which may see no registry."""
    global _registry_wanted
    _registry_wanted = False


def catalog_of_this_process() -> Catalog:
    """The registry that the environment names; an empty one where the process does without."""
    return workspace_from_environment().catalog() if _registry_wanted else Catalog(Path(os.devnull), "", ())


def workspace_from_environment() -> Workspace:
    """The workspace that the environment variables name; relative paths refer to the current folder."""
    workers = os.environ.get("LVDD_WORKERS", "")
    if workers and not workers.isdecimal():
        raise ValueError(f"LVDD_WORKERS must be a whole number of at least 1, got {workers!r}")
    return Workspace(
        registry=Path(os.environ.get("LVDD_DATASETS") or "data/datasets.yaml"),
        data_root=parse_place(os.environ.get("LVDD_DATA_ROOT") or "data"),
        num_workers=int(workers) if workers else len(os.sched_getaffinity(0)),
        scheduler=os.environ.get("LVDD_DASK_SCHEDULER", ""),
        device=os.environ.get("LVDD_DEVICE") or "auto",
    )
