"""How many clips each registered dataset has: found on disk, published, missing, and left out when they were decoded.

Counts only; the files are listed in `listing`, decoded in `ingestion`.
"""

from dataclasses import dataclass

from lvdd_assets.distill.catalog import CatalogError, DatasetSpec
from lvdd_assets.distill.listing import LAYOUTS, list_dataset
from lvdd_assets.distill.places import Place
from lvdd_assets.distill.stores import ZarrStore


@dataclass(frozen=True)
class Inventory:
    """The counts of one dataset.

    Attributes:
        name: the dataset.
        problem: why it could not be listed; all counts are 0 then.
        num_classes: its classes.
        num_train: train videos on disk.
        num_test: test videos on disk.
        published: train and test videos by the layout's publisher, for all its classes; None where unknown.
        num_missing: videos that the publisher lists and that are not on disk.
        num_unused: videos on disk that the split leaves out.
        num_refused: names of videos that cannot be one, e.g. folders.
        num_decoded: classes that `raw_clips` has stored.
        num_excluded: videos of these classes that were left out, the refused ones included.
    """

    name: str
    problem: str = ""
    num_classes: int = 0
    num_train: int = 0
    num_test: int = 0
    published: tuple[int, int] | None = None
    num_missing: int = 0
    num_unused: int = 0
    num_refused: int = 0
    num_decoded: int = 0
    num_excluded: int = 0


def take_inventory(spec: DatasetSpec, data_root: Place) -> Inventory:
    """Counts a dataset's files and what is stored of them; opens none. A dataset that is not there is no error."""
    try:
        listings = list_dataset(spec)
    except CatalogError as error:
        return Inventory(spec.name, problem=str(error))
    store = ZarrStore(data_root, "raw_clips")
    commits = [commit for name in listings if (commit := store.commit_of(f"{spec.name}/{name}")) is not None]
    sides = [clip.is_test for listing in listings.values() for clip in listing.clips]
    published = LAYOUTS[spec.layout].EXPECTED.get(spec.split.named or "")
    return Inventory(
        name=spec.name,
        num_classes=len(listings),
        num_train=len(sides) - sum(sides),
        num_test=sum(sides),
        # What is published counts all classes.
        published=published if spec.classes is None else None,
        num_missing=sum(len(listing.missing) for listing in listings.values()),
        num_unused=sum(len(listing.unused) for listing in listings.values()),
        num_refused=sum(len(listing.refused) for listing in listings.values()),
        num_decoded=len(commits),
        num_excluded=sum(commit.metrics["num_excluded"] for commit in commits),
    )
