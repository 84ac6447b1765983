"""How a class lies in the store of `hosvd_cores`: its HOSVD, or its one coding in float32, or its videos, and back.

The HOSVD is kept before it is quantised: which step the budget buys is known only when all classes are there, and is
the release's to choose. So a changed budget touches no class.
"""

from typing import Any

import numpy as np

from lvdd_assets.distill import class_coding, video_ladders
from lvdd_assets.distill.class_coding import ClassCoder, CodedClass
from lvdd_assets.distill.stores import Partition, Writer
from lvdd_assets.distill.tucker import TuckerTensor
from lvdd_assets.distill.video_ladders import VideoLadder


def keep_hosvd(out: Writer, hosvd: TuckerTensor) -> None:
    """Stores core and factors in float32."""
    out.put("core", hosvd.core)
    out.put("factors", np.concatenate([factor.ravel() for factor in hosvd.factors]))


def read_hosvd(partition: Partition) -> TuckerTensor:
    """What `keep_hosvd` stored."""
    core, flat = partition.read("core"), partition.read("factors")
    sizes = core.shape[1:]
    parts = np.split(flat, np.cumsum([size * size for size in sizes])[:-1])
    return TuckerTensor(core, tuple(part.reshape(size, size) for part, size in zip(parts, sizes, strict=True)))


def keep_coded(out: Writer, coded: CodedClass) -> dict[str, Any]:
    """Stores a class's only coding; returns the plain values that its bytes do not hold."""
    out.put("coded", np.frombuffer(coded.data, dtype=np.uint8))
    return {
        "codec": coded.codec,
        "num_clips": coded.num_clips,
        "mode_sizes": list(coded.mode_sizes),
        "ranks": list(coded.ranks),
        "step": coded.step,
    }


def read_coded(partition: Partition) -> CodedClass:
    """What `keep_coded` stored, with its values in the partition's metrics as `coded`."""
    values = partition.commit.metrics["coded"]
    sizes, ranks = tuple(values["mode_sizes"]), tuple(values["ranks"])
    data = partition.read("coded").tobytes()
    return CodedClass(values["codec"], values["num_clips"], sizes, ranks, values["step"], data)


def keep_videos(out: Writer, ladder: VideoLadder) -> None:
    """Stores a class's clips as video at every rung."""
    data, table = video_ladders.pack_ladder(ladder)
    out.put("videos", data)
    out.put_json("video_table", table)


def read_videos(partition: Partition) -> VideoLadder:
    """What `keep_videos` stored."""
    return video_ladders.unpack_ladder(partition.read("videos"), partition.read_json("video_table"))


def read_latents(partition: Partition, *, step: float, most_clips: int) -> np.ndarray:
    """A class's first latents as a release at some step will hold them: float32 [N, T, C, h, w]."""
    if "coded" in partition.commit.metrics:
        return class_coding.decode(read_coded(partition))[:most_clips]
    return class_coding.decode(ClassCoder(read_hosvd(partition)).encode(step, num_clips=most_clips, basis="own"))
