"""Small copies of the field's datasets, as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from lvdd_assets.distill.catalog import Budget, ClipShape, DatasetSpec, Split

CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".webm": "libvpx-vp9", ".mkv": "ffv1"}
MakeSpec = Callable[..., DatasetSpec]
MakeVideo = Callable[[Path], None]


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """A registry entry for a dataset below the test's folder."""

    def make(layout: str, split: str | Split = "official", root: str = "videos", **changes: object) -> DatasetSpec:
        split = Split(named=split) if isinstance(split, str) else split
        shape, budget = ClipShape(8, 1, 16), Budget(ipc=1)
        return DatasetSpec("set", tmp_path, tmp_path / root, layout, split, shape, budget, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """Writes a real video of 10 frames into the container that the file's suffix names; each kind is encoded once."""
    made: dict[str, bytes] = {}
    folder = tmp_path_factory.mktemp("encoded")

    def make(path: Path) -> None:
        suffix = path.suffix.lower()
        if suffix not in made:
            source = folder / f"one{suffix}"
            with av.open(source, "w") as container:
                stream = container.add_stream(CODECS[suffix], rate=10)
                stream.width = stream.height = 32
                stream.pix_fmt = "yuv420p"
                for index in range(10):
                    pixels = np.full((32, 32, 3), 20 * index, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode(None))
            made[suffix] = source.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[suffix])

    return make
