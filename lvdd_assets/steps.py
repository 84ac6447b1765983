"""What a step of the chain is, one partition of it to be computed, and what became of that: plain values.

What a step computes belongs to its asset's module; how it lies on disk to `distill.stores`; which partitions are stale
to `staleness`; running them to `incremental`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.commits import Commit, ReplacedError
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.places import Place
from lvdd_assets.distill.source_code import code_version_of
from lvdd_assets.distill.stores import Partition, ZarrStore
from lvdd_assets.partitions import class_key
from lvdd_assets.timings import Taken

# Modules that steps import and that have no part in what comes out: a change of them makes nothing stale.
NO_PART_IN_RESULTS = frozenset(
    {
        # how steps are run, shown and timed
        *(f"lvdd_assets.{name}" for name in ("cluster", "incremental", "materialize", "partitions", "pool")),
        *(f"lvdd_assets.{name}" for name in ("resources", "staleness", "steps", "timings", "workers")),
        *(
            f"lvdd_assets.distill.{name}"
            for name in (
                # how things are found and lie on disk: what is in them is in the fingerprint, by content
                *("catalog", "commits", "digests", "file_stores", "layouts", "listing", "places", "registry", "stores"),
                # where they are computed
                *("devices", "sandbox"),
                # what is told beside a result, and remade with the next
                *("asset_plots", "fidelity", "measuring", "plot_style", "report_pictures", "source_code"),
                # the paper's figures: settings take those that they use
                "paper",
            )
        ),
    }
)


class StepError(RuntimeError):
    """A step could not be done for some partitions. What was finished stays stored; the message names the rest."""


@dataclass(frozen=True)
class Outside:
    """What one partition is made from besides the stores.

    Attributes:
        hashes: of files and weights, by name; part of the fingerprint, and kept in the commit mark.
        payload: what the task needs to find them again, e.g. the files; any picklable value.
    """

    hashes: Mapping[str, str]
    payload: Any = None


@dataclass(frozen=True)
class Step:
    """One asset of the chain, as the runner sees it.

    Attributes:
        name: the asset's name.
        by: whether its partitions are classes or datasets.
        compute: makes and commits one partition; a module-level function, since it may run in another process.
        settings: what of a registry entry the result depends on.
        defaults: the run config's fields with their defaults.
        upstream: names of the steps whose partitions it reads.
        outside: what it reads from outside the stores (files, weights): a dataset, some of its classes and the data
            root to what each class is made from.
        module: full name of the module whose source is the algorithm, with all that it imports; the code version is
            derived from them.
        templates: further files that the result is made from.
        files: whether it keeps plain files instead of zarr arrays.
        on_device: whether it computes on the workspace's device. On a GPU its classes then run one after the other in
            this process: they would share it, and each would hold the weights.
    """

    name: str
    by: Literal["class", "dataset"]
    compute: Callable[["Task"], None]
    settings: Callable[[DatasetSpec], Mapping[str, Any]]
    defaults: Mapping[str, Any]
    module: str
    upstream: tuple[str, ...] = ()
    outside: Callable[[DatasetSpec, Sequence[str], Place], Mapping[str, Outside]] | None = None
    files: bool = False
    on_device: bool = False
    templates: tuple[Path, ...] = ()

    @functools.cached_property
    def code_version(self) -> str:
        """Hash of the algorithm's source; comments, docstrings and layout do not count.

        What is imported is followed, so that no part of it can be forgotten; what has no part in results is named.
        """
        return code_version_of(self.module, self.templates, without=NO_PART_IN_RESULTS)

    def store(self, data_root: Place) -> ZarrStore | FileStore:
        """The step's store."""
        return FileStore(data_root, self.name) if self.files else ZarrStore(data_root, self.name)


@dataclass(frozen=True)
class Task:
    """One partition of one step, ready to be computed in any process.

    Attributes:
        step: the asset's name.
        dataset: the registry's entry.
        class_name: the class; empty for a step by dataset.
        class_names: all classes of the dataset.
        config: the run config's values.
        settings: the registry's and the config's values that the result depends on, to be stored with it.
        inputs: hashes and fingerprints of all that it is made from, by name.
        fingerprint: hash of the step, its code, its settings and its inputs.
        code: the step's code version.
        payload: what the step's `outside` sent along.
        num_processes: processes that this task may use for itself.
        device: where tensors are computed, as `devices.find_device` takes it.
    """

    step: str
    dataset: DatasetSpec
    class_name: str
    class_names: tuple[str, ...]
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    fingerprint: str
    code: str
    data_root: Place
    payload: Any = None
    num_processes: int = 1
    device: str = "auto"

    @property
    def key(self) -> str:
        """The partition key."""
        return key_of(self.dataset, self.class_name)

    def open(self, step: str, class_name: str | None = None) -> Partition:
        """A committed upstream partition: of this task's class, of the named class, or (name "") of the dataset.

        Raises:
            ReplacedError: it is not the one that this task's fingerprint names, since another run was quicker.
        """
        key = key_of(self.dataset, self.class_name if class_name is None else class_name)
        partition = ZarrStore(self.data_root, step).open(key)
        self._refuse_another(step, key, partition.commit)
        return partition

    def open_files(self, step: str) -> FileStore:
        """The store of a step of this dataset that keeps plain files, with the files that this task's fingerprint
        names.

        Raises:
            ReplacedError: it has others, since another run was quicker.
        """
        store = FileStore(self.data_root, step)
        commit = store.commit_of(self.dataset.name)
        if commit is not None:
            self._refuse_another(step, self.dataset.name, commit)
        return store

    def commit_arguments(self) -> dict[str, Any]:
        """What every store's `write` wants beside the key and the data."""
        return {"fingerprint": self.fingerprint, "settings": self.settings, "inputs": self.inputs, "code": self.code}

    def _refuse_another(self, step: str, key: str, commit: Commit) -> None:
        expected = self.inputs.get(input_name(step, key))
        if expected is not None and commit.fingerprint != expected:
            raise ReplacedError(f"{step} {key} was replaced by another run while {self.step} {self.key} was made")


@dataclass(frozen=True)
class Outcome:
    """What became of one partition in a run.

    Attributes:
        step: the asset's name.
        key: the partition.
        cached: whether it was fresh and nothing was computed.
        taken: seconds and memory; nothing for a fresh one.
        commit: what is stored now.
        reason: why it was computed; empty for a fresh one.
    """

    step: str
    key: str
    cached: bool
    taken: Taken
    commit: Commit
    reason: str = ""


def key_of(dataset: DatasetSpec, class_name: str) -> str:
    """The partition key of a class, or of the dataset where the class is ""."""
    return class_key(dataset.name, class_name) if class_name else dataset.name


def keys_of(dataset: DatasetSpec, class_names: Iterable[str]) -> list[str]:
    """The keys of some classes."""
    return [key_of(dataset, name) for name in class_names]


def input_name(step: str, key: str) -> str:
    """How an upstream partition is called among a task's inputs."""
    return f"{step} {key}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
