"""The dataset card of a release: the `README.md` that goes with exported clips, with the header that hubs read.

It is made from what the release holds (classes, clips, provenance), so it costs no byte of the budget. What must NOT
come here: files (`exporting`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from lvdd_assets.distill.release import Release
from lvdd_assets.distill.sources import SOURCES

_RECIPES = {
    "tight": (
        "Clips were encoded by an autoencoder, the most diverse of each class chosen by a determinantal point process, "
        "their latents turned into a HOSVD basis, rounded at one step for all classes and range-coded."
    ),
    "paper": (
        "As published (Latent Video Dataset Distillation, arXiv 2504.17132): latents of a diverse subset of each "
        "class's clips, truncated by HOSVD and kept in float32, with the quantised autoencoder."
    ),
    "codec": (
        "The most diverse clips of each class were chosen by a determinantal point process and kept as video at the "
        "frame sizes and qualities that fit the budget best."
    ),
    "auto": "Latents and video were both tried; the release keeps the one that preserves more of what a network sees.",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def license_of(release: Release) -> str:
    """The source dataset's licence: as registered, else the terms that its publisher has, else "unknown"."""
    registered = release.provenance.get("license")
    if isinstance(registered, str) and registered.strip():
        return registered
    return SOURCES[release.name].terms if release.name in SOURCES else "unknown"


def dataset_card(release: Release, *, pixels: str, configuration: Mapping[str, Any] | None = None) -> str:
    """The card as Markdown with a YAML header.

    Args:
        release: the opened release.
        pixels: how the exported files hold the clips, a sentence.
        configuration: more keys for the header, of plain values, such as `configs`.
    """
    return _header(release, configuration or {}) + _body(release, pixels)


def _header(release: Release, configuration: Mapping[str, Any]) -> str:
    license_text = license_of(release)
    is_id = _LICENSE_ID.fullmatch(license_text) is not None
    values: dict[str, Any] = {
        "pretty_name": f"{release.name}, distilled",
        "license": license_text if is_id else "other",
        **({} if is_id else {"license_name": license_text}),
        "task_categories": ["video-classification"],
        "size_categories": [_size_category(release.num_clips)],
        "tags": ["dataset-distillation", "lvdd-assets"],
        **configuration,
    }
    # JSON is YAML: no name of a class can break out of it.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(("---", *lines, "---", "", ""))


def _body(release: Release, pixels: str) -> str:
    shape, recipe = release.shape, str(release.provenance.get("recipe", ""))
    facts = {
        "distilled from": release.name,
        "classes": release.num_classes,
        "clips": release.num_clips,
        "a clip": f"{shape.frames} frames, {shape.stride} apart in the source, of {shape.size}×{shape.size} pixels",
        "bytes of the release": release.stored_bytes,
        "SHA-256 of the release": release.sha256,
        "soft labels": "yes" if release.has_soft_labels else "no",
        **{f"provenance: {key}": value for key, value in _flat(release.provenance)},
    }
    return "\n".join(
        (
            f"# {_escaped(release.name)}, distilled",
            "",
            f"{release.num_clips} clips of {release.num_classes} classes, decoded from a release of "
            f"{release.stored_bytes} bytes that was made to train an action classifier.",
            *(["", _RECIPES[recipe]] if recipe in _RECIPES else []),
            "",
            f"{pixels} Clips are reconstructions, not the originals.",
            "",
            "| what | |",
            "| --- | --- |",
            *(f"| {_escaped(key)} | {_escaped(value)} |" for key, value in facts.items()),
            "",
            "## Licence of the source",
            "",
            _escaped(license_of(release)),
            "",
            "## Classes",
            "",
            "| label | class | clips |",
            "| --: | --- | --: |",
            *(
                f"| {label} | {_escaped(name)} | {count} |"
                for label, (name, count) in enumerate(zip(release.class_names, release.class_counts, strict=True))
            ),
            "",
        )
    )


def _flat(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Plain values, and those of one level below; fingerprints of inputs, one a class, are counted, not listed."""
    rows = []
    for key, value in provenance.items():
        if key == "inputs" and isinstance(value, dict):
            rows.append((key, f"{len(value)} fingerprints"))
        elif isinstance(value, dict):
            rows += [(f"{key}.{name}", str(item)) for name, item in value.items() if item is not None]
        else:
            rows.append((str(key), str(value)))
    return rows


def _size_category(num_clips: int) -> str:
    return next((name for limit, name in _SIZES if num_clips < limit), "n>1M")


def _escaped(value: object) -> str:
    """Text that stays in its cell: what stands in a release may come from a stranger."""
    text = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", str(value)[:2000])
    return re.sub(r"\s+", " ", text)
