"""How the assets are partitioned, written once: by class, by dataset, and the mapping between them.

Keys are flat (`dataset/class`): datasets have different classes, so the cross product of a multi-partition would be
mostly impossible cells. Datasets stand in the registry's order, classes sorted within them, so that a dataset's classes
are one range.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from lvdd_assets.distill.catalog import Catalog, CatalogError, DatasetSpec
from lvdd_assets.distill.listing import class_names
from lvdd_assets.resources import catalog_of_this_process

DEFAULT_ALIAS = "default"


class AliasedPartitions(dg.StaticPartitionsDefinition):
    """Static partitions whose ranges have names of their own: `--partition demo` is all classes of the dataset `demo`.

    `dagster asset materialize` takes one partition or one range; an alias that turns into a range lets one option,
    and one environment variable for its default, serve class-level and dataset-level assets alike.

    Args:
        keys: the partition keys in order.
        aliases: first and last key by alias.
        absent: why a name that could be expected stands for nothing.
    """

    def __init__(
        self, keys: list[str], aliases: Mapping[str, tuple[str, str]], absent: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(keys)
        self._aliases = dict(aliases)
        self._absent = dict(absent or {})

    def get_tags_for_partition_key(self, partition_key: str) -> Mapping[str, str]:
        """Tags of a run over one partition, or over the range that an alias stands for."""
        if partition_key not in self._aliases:
            return {PARTITION_NAME_TAG: partition_key}
        first, last = self._aliases[partition_key]
        if first == last:
            return {PARTITION_NAME_TAG: first}
        return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}

    def validate_partition_key(self, partition_key: str, context: object) -> None:
        """Accepts keys and aliases.

        Raises:
            CatalogError: it is neither; the message lists what there is.
        """
        if partition_key in self._aliases or self.has_partition_key(partition_key):
            return
        dataset, keys = split_key(partition_key)[0], list(self.get_partition_keys())
        if dataset in self._absent:
            raise CatalogError(self._absent[dataset])
        names = [
            *dict.fromkeys(split_key(key)[0] for key in keys),
            *(name for name in self._aliases if name not in keys),
        ]
        known = [key for key in keys if split_key(key)[0] == dataset] or list(dict.fromkeys(names))
        raise CatalogError(f"unknown partition {partition_key!r}; possible are: {', '.join(known)}")


def class_key(dataset: str, class_name: str) -> str:
    """The partition key of a class."""
    return f"{dataset}/{class_name}"


def split_key(key: str) -> tuple[str, str]:
    """Dataset and class of a partition key; the class is empty for a dataset's key."""
    dataset, _, class_name = key.partition("/")
    return dataset, class_name


def build_partitions(
    catalog: Catalog,
) -> tuple[AliasedPartitions, AliasedPartitions, dg.StaticPartitionMapping]:
    """By class, by dataset, and the mapping from the first to the second."""
    keys = {spec.name: [class_key(spec.name, name) for name in class_names(spec)] for spec in catalog.datasets}
    ranges = {name: (some[0], some[-1]) for name, some in keys.items() if some}
    if catalog.default in ranges:
        ranges[DEFAULT_ALIAS] = ranges[catalog.default]
    absent = {
        spec.name: f"dataset {spec.name!r} has no classes: no class folders below {spec.root}. Mend `root` in "
        f"{catalog.path}, or list `classes` there."
        for spec in catalog.datasets
        if not keys[spec.name]
    }
    by_class = AliasedPartitions([key for some in keys.values() for key in some], ranges, absent)
    by_dataset = AliasedPartitions(list(keys), {DEFAULT_ALIAS: (catalog.default, catalog.default)})
    mapping = dg.StaticPartitionMapping({key: name for name, some in keys.items() for key in some})
    return by_class, by_dataset, mapping


def datasets_of_run(context: dg.AssetCheckExecutionContext, catalog: Catalog) -> list[DatasetSpec]:
    """The datasets whose partitions a run is about; all that are registered where the run names none.

    A check without partitions runs once for all partitions of its run, and its context does not say which these are.
    """
    named = [split_key(key)[0] for key in _ends_of_run(context)]
    order = [spec.name for spec in catalog.datasets]
    if not named:
        return list(catalog.datasets)
    positions = [order.index(name) for name in named]
    return list(catalog.datasets[min(positions) : max(positions) + 1])


def class_keys_of_run(context: dg.AssetCheckExecutionContext, catalog: Catalog) -> list[str]:
    """The keys of the classes that a run is about, in order; all of a dataset's where it names none."""
    specs = datasets_of_run(context, catalog)
    keys = [class_key(spec.name, name) for spec in specs for name in class_names(spec)]
    positions = [keys.index(key) for key in _ends_of_run(context) if key in keys]
    return keys[min(positions) : max(positions) + 1] if positions else keys


def _ends_of_run(context: dg.AssetCheckExecutionContext) -> list[str]:
    """The run's partition, or the first and the last of its range."""
    tags = (PARTITION_NAME_TAG, ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    return [context.run.tags[tag] for tag in tags if tag in context.run.tags]


BY_CLASS, BY_DATASET, CLASS_TO_DATASET = build_partitions(catalog_of_this_process())
