"""lvdd-assets: a labelled video dataset and a byte budget in, one small file that trains an action classifier out.

The face for users of a release. What it names is imported on first use, so that `import lvdd_assets` starts neither
torch nor Dagster.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvdd_assets.distill.release import Release, load_release

__all__ = ["Release", "load_release"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lvdd_assets' has no attribute {name!r}")
    from lvdd_assets.distill import release

    return getattr(release, name)
