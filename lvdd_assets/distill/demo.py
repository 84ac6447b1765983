"""The demo dataset: seeded clips of eight motions, written as real H.264 files.

Each class is a motion of one textured shape over a drifting textured background. The scene (shape, colours, textures,
position, size and angle at the middle of the clip) is drawn from the same distribution whatever the motion is, so that
one frame says next to nothing about the class: only the order of the frames does.

What belongs here: drawing scenes, moving them, writing the folder of files. What must NOT come here: reading video back
(that is `video`), splits and clip shapes (`catalog`), any knowledge of how the clips are encoded or judged later.

Legend: T frames, H, W pixels, C channels; S side of a periodic texture tile.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.video import write_clip

MOTIONS: tuple[str, ...] = (
    "grow",
    "move_down",
    "move_left",
    "move_right",
    "move_up",
    "shrink",
    "spin_left",
    "spin_right",
)
NUM_FRAMES = 24
FPS = 12
SIZE = 64

MARKER = ".demo.json"
# Raised whenever the same seed would give other pixels: a folder rendered by an older generator is then rendered again.
_GENERATOR = 3

# What a motion amounts to between the first and the last frame of the clip, and how much every clip has of the others.
_TRAVEL_PIXELS = (18.0, 25.0)
_TURN_RADIANS = (np.pi * 0.55, np.pi * 1.05)
_ZOOM_FACTOR = (1.75, 2.3)
_JITTER_PIXELS = 2.5
_JITTER_RADIANS = 0.15
_JITTER_LOG_ZOOM = 0.08
# (dx, dy, turn, log zoom) of each motion; y points down, a positive turn is clockwise on the screen.
_DIRECTIONS: dict[str, tuple[int, int, int, int]] = {
    "grow": (0, 0, 0, 1),
    "move_down": (0, 1, 0, 0),
    "move_left": (-1, 0, 0, 0),
    "move_right": (1, 0, 0, 0),
    "move_up": (0, -1, 0, 0),
    "shrink": (0, 0, 0, -1),
    "spin_left": (0, 0, -1, 0),
    "spin_right": (0, 0, 1, 0),
}

# The pose in the middle of the clip, and the background, are drawn from these whatever the motion is.
_MARGIN_PIXELS = 12
_RADIUS_PIXELS = (10.0, 22.0)
_DRIFT_PIXELS = (0.0, 10.0)

_TILE = 96
_NUM_ANGLES = 720
_LUMA = np.array([0.299, 0.587, 0.114])
_SHAPES = ("blob", "polygon", "star", "ellipse")
_TEXTURES = ("stripes", "checks", "noise", "dots", "gradient")

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Scene:
    """What a clip shows, and where it is in the middle of the clip; drawn without knowing the motion.

    `radii` is the outline: the radius over `_NUM_ANGLES` angles, largest 1, in units of the size.
    """

    radii: Array
    skin_SSC: Array
    background_SSC: Array
    centre: tuple[float, float]
    radius: float
    angle: float


def render_clip(motion: str, *, seed: int) -> NDArray[np.uint8]:
    """Draws one clip.

    Args:
        motion: the class, one of `MOTIONS`.
        seed: the scene and the nuisances; the same seed and motion give the same pixels.

    Returns:
        uint8 [T, H, W, C], T = 24, H = W = 64, RGB.
    """
    if motion not in MOTIONS:
        raise ValueError(f"unknown motion {motion!r}: expected one of {', '.join(MOTIONS)}")
    rng = np.random.default_rng([seed, MOTIONS.index(motion)])
    scene = _draw_scene(rng)
    x, y, turn, log_zoom = _draw_path(rng, motion)
    frames = _shift_tile(scene.background_SSC, _draw_drift(rng))
    _paint_shape(frames, scene, x=x, y=y, turn=turn, zoom=np.exp(log_zoom))
    noise = rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(rng.uniform(0.004, 0.012))
    return np.clip((frames + noise) * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _draw_path(rng: np.random.Generator, motion: str) -> Array:
    """How far the shape is from its middle pose at each frame: float32 [4, T], rows dx, dy, turn, log zoom.

    The progress runs from -1/2 to 1/2, odd about the middle of the clip: the poses met by the two directions of a
    motion are then the same over the clip, in opposite order.
    """
    amounts = np.array(
        [
            rng.uniform(*_TRAVEL_PIXELS),
            rng.uniform(*_TRAVEL_PIXELS),
            rng.uniform(*_TURN_RADIANS),
            np.log(rng.uniform(*_ZOOM_FACTOR)),
        ]
    )
    limits = np.array([_JITTER_PIXELS, _JITTER_PIXELS, _JITTER_RADIANS, _JITTER_LOG_ZOOM])
    direction = np.array(_DIRECTIONS[motion])
    jitter = np.where(direction == 0, rng.uniform(-limits, limits), 0.0)
    steps = np.linspace(-0.5, 0.5, NUM_FRAMES)
    easing = rng.uniform(-0.3, 0.3)
    progress = steps + easing * np.sin(2 * np.pi * steps) / (2 * np.pi)
    return np.asarray((direction * amounts + jitter)[:, None] * progress, dtype=np.float32)


def _draw_drift(rng: np.random.Generator) -> Array:
    """Where the background is at each frame, in pixels: float32 [2, T]; any direction, at an even speed."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*_DRIFT_PIXELS)
    steps = np.linspace(0, 1, NUM_FRAMES)
    start = rng.uniform(0, _TILE, size=2)
    ends = length * np.array([np.cos(angle), np.sin(angle)])
    return np.asarray(start[:, None] + ends[:, None] * steps, dtype=np.float32)


def _draw_scene(rng: np.random.Generator) -> _Scene:
    # A light shape before a calm, dark ground: with either the other way round in half of the clips, a network needs
    # more clips and updates than a demo has time for.
    ground, skin = _draw_colour(rng, brightness=(0.06, 0.32)), _draw_colour(rng, brightness=(0.6, 1.0))
    ground_too = _mix(ground, _draw_colour(rng, brightness=(0.1, 0.9)), rng.uniform(0.08, 0.2))
    skin_too = _mix(skin, _draw_colour(rng, brightness=(0.2, 0.9)), rng.uniform(0.4, 0.7))
    lowest, highest = _MARGIN_PIXELS, SIZE - _MARGIN_PIXELS
    return _Scene(
        radii=_draw_outline(rng),
        skin_SSC=_draw_texture(rng, skin, skin_too, cycles=(1, 3)),
        background_SSC=_draw_texture(rng, ground, ground_too, cycles=(2, 5)),
        centre=(rng.uniform(lowest, highest), rng.uniform(lowest, highest)),
        radius=float(np.exp(rng.uniform(*np.log(_RADIUS_PIXELS)))),
        angle=rng.uniform(0, 2 * np.pi),
    )


def _draw_colour(rng: np.random.Generator, *, brightness: tuple[float, float]) -> Array:
    """A random hue at a random luma within `brightness`: float32 [3] in [0, 1]."""
    hue = rng.uniform(0, 2 * np.pi)
    tint = _mix(np.full(3, 0.5), 0.5 + 0.5 * np.cos(hue + np.array([0.0, 2.1, 4.2])), rng.uniform(0.3, 1.0))
    wanted = rng.uniform(*brightness)
    colour = np.clip(tint * wanted / (_LUMA @ tint), 0, 1)
    # Full blue is still dark: what is missing is made up with white.
    luma = float(_LUMA @ colour)
    return _mix(colour, np.ones(3), max(0.0, (wanted - luma) / (1 - luma)) if luma < 1 else 0.0)


def _mix(first: NDArray, second: NDArray, share: float) -> Array:
    return np.asarray(first * (1 - share) + second * share, dtype=np.float32)


def _draw_outline(rng: np.random.Generator) -> Array:
    """A closed outline without rotational symmetry (a turn must show): radius at each angle, largest 1."""
    phi = np.linspace(0, 2 * np.pi, _NUM_ANGLES, endpoint=False)
    kind = _SHAPES[rng.integers(len(_SHAPES))]
    corners = int(rng.integers(3, 6))
    if kind == "polygon":
        wedge = 2 * np.pi / corners
        radii = np.cos(wedge / 2) / np.cos(np.mod(phi, wedge) - wedge / 2)
    elif kind == "star":
        wave = np.abs(np.mod(phi * corners / (2 * np.pi), 1.0) * 2 - 1)
        radii = 1 / (1 + rng.uniform(0.9, 1.6) * wave)
    elif kind == "ellipse":
        radii = np.ones_like(phi)
    else:
        harmonics = np.arange(2, 6)[:, None]
        weights = rng.normal(size=(4, 1)) / harmonics * 0.5
        phases = rng.uniform(0, 2 * np.pi, size=(4, 1))
        waves = (weights * np.cos(harmonics * (phi + phases))).sum(axis=0)
        radii = np.maximum(1 + waves, 0.35)
    # Stretching along one axis leaves at most a half-turn symmetry, which a turn of less than half does not meet.
    stretch = rng.uniform(1.5, 2.2)
    axis = phi - rng.uniform(0, 2 * np.pi)
    warped = np.arctan2(stretch * np.sin(axis), np.cos(axis))
    radii = np.interp(warped, phi, radii, period=2 * np.pi) / np.hypot(np.cos(axis), stretch * np.sin(axis))
    return np.asarray(radii / radii.max(), dtype=np.float32)


def _draw_texture(rng: np.random.Generator, first: Array, second: Array, *, cycles: tuple[int, int]) -> Array:
    """A tile that repeats without a seam: float32 [S, S, 3] in [0, 1], between two colours."""
    kind = _TEXTURES[rng.integers(len(_TEXTURES))]
    steps = np.linspace(0, 2 * np.pi, _TILE, endpoint=False)
    u, v = steps[None, :], steps[:, None]
    low, high = cycles
    across, down = (int(n) * int(rng.choice([-1, 1])) for n in rng.integers(low, high + 1, size=2))
    phase_u, phase_v = rng.uniform(0, 2 * np.pi, size=2)
    sharpness = rng.uniform(2, 5)
    if kind == "stripes":
        field = np.sin(across * u + (down * v if rng.random() < 0.5 else 0 * v) + phase_u)
    elif kind == "checks":
        field = np.sin(across * u + phase_u) * np.sin(down * v + phase_v)
    elif kind == "dots":
        field = (np.cos(across * u + phase_u) + np.cos(down * v + phase_v)) - 0.7
    elif kind == "gradient":
        field, sharpness = np.sin(u + np.sign(down) * v + phase_u), 0.8
    else:
        cycles_S = np.fft.fftfreq(_TILE, 1 / _TILE)
        envelope = np.exp(-(cycles_S[:, None] ** 2 + cycles_S**2) / (2 * high**2))
        field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(_TILE, _TILE))) * envelope).real
        field, sharpness = field / field.std(), 1.0
    share = 0.5 + 0.5 * np.tanh(sharpness * field)
    return np.asarray(first + (second - first) * share[..., None], dtype=np.float32)


def _shift_tile(tile_SSC: Array, offsets: Array) -> Array:
    """The window of a repeating tile at each frame's offset (x, y in pixels), bilinear: float32 [T, H, W, C]."""
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.float32)
    pixels = np.arange(SIZE + 1)
    for frame, x, y in zip(frames, *offsets, strict=True):
        rows, columns = (pixels + int(y)) % _TILE, (pixels + int(x)) % _TILE
        patch = tile_SSC[rows[:, None], columns]
        patch = patch[:-1] + (patch[1:] - patch[:-1]) * (y % 1)
        frame[...] = patch[:, :-1] + (patch[:, 1:] - patch[:, :-1]) * (x % 1)
    return frames


def _paint_shape(frames: Array, scene: _Scene, *, x: Array, y: Array, turn: Array, zoom: Array) -> None:
    """Paints the moved shape over the frames, in place, with edges one pixel soft."""
    outline = scene.radii
    # The radial distance to the outline overstates the true one where the outline is steep: corrected by its slope.
    slope = (np.roll(outline, -1) - np.roll(outline, 1)) * np.float32(_NUM_ANGLES / (4 * np.pi))
    steepness = outline / np.hypot(outline, slope)
    grid = np.arange(SIZE, dtype=np.float32)
    for t, frame in enumerate(frames):
        radius = scene.radius * zoom[t]
        centre_x, centre_y = scene.centre[0] + x[t], scene.centre[1] + y[t]
        rows = slice(max(0, int(centre_y - radius - 1)), min(SIZE, int(centre_y + radius + 3)))
        columns = slice(max(0, int(centre_x - radius - 1)), min(SIZE, int(centre_x + radius + 3)))
        dx = ((grid[columns] - centre_x) / radius)[None, :]
        dy = ((grid[rows] - centre_y) / radius)[:, None]
        distance = np.hypot(dx, dy)
        heading = np.arctan2(dy, dx) - scene.angle - turn[t]
        index = (heading * (_NUM_ANGLES / (2 * np.pi))).astype(np.int32) % _NUM_ANGLES
        cover = np.clip((outline[index] - distance) * steepness[index] * radius + 0.5, 0, 1)[..., None]
        # The skin turns and grows with the shape: one tile across three radii.
        cos, sin = np.cos(scene.angle + turn[t]), np.sin(scene.angle + turn[t])
        u = (cos * dx + sin * dy) * (_TILE / 3)
        v = (cos * dy - sin * dx) * (_TILE / 3)
        frame[rows, columns] += (_sample_tile(scene.skin_SSC, u, v) - frame[rows, columns]) * cover


def _sample_tile(tile_SSC: Array, u: Array, v: Array) -> Array:
    """A repeating tile at real coordinates, bilinear: float32 [..., C]."""
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    across, down = (u - column)[..., None], (v - row)[..., None]
    left, right, top, bottom = column % _TILE, (column + 1) % _TILE, row % _TILE, (row + 1) % _TILE
    upper = tile_SSC[top, left] * (1 - across) + tile_SSC[top, right] * across
    lower = tile_SSC[bottom, left] * (1 - across) + tile_SSC[bottom, right] * across
    return upper * (1 - down) + lower * down


def render_dataset(
    root: Path,
    *,
    num_train: int = 26,
    num_test: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Renders `<root>/{train,test}/<motion>/<motion>_000.mp4` and so on, unless that very dataset is already there.

    The marker file is written last. With it in place nothing is touched, so a file that somebody replaced or deleted
    stays so; without it (a killed run) files already written are kept and the rest follow. Other settings render all
    files of these names anew, and leave files of other names alone.

    Args:
        root: the folder, made if absent.
        num_train: training clips of each motion.
        num_test: test clips of each motion.
        seed: of all scenes.
        progress: called after each file with the number of files done and of files in all.

    Returns:
        The number of files written.
    """
    if num_train < 1 or num_test < 1:
        raise ValueError(f"need at least one clip of each split, got {num_train = }, {num_test = }")
    settings = {"generator": _GENERATOR, "num_train": num_train, "num_test": num_test, "seed": seed}
    marker, started = root / MARKER, root / (MARKER + ".started")
    if _read_settings(marker) == settings:
        return 0
    if _read_settings(started) != settings:
        for split in ("train", "test"):
            for motion in MOTIONS:
                for old in (root / split / motion).glob(f"{motion}_[0-9][0-9][0-9].mp4"):
                    old.unlink()
        root.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        started.write_text(json.dumps(settings))
    jobs = [
        (root / split / motion / f"{motion}_{index:03d}.mp4", motion, [seed, number, index])
        for number, (split, count) in enumerate([("train", num_train), ("test", num_test)])
        for motion in MOTIONS
        for index in range(count)
    ]
    num_written = 0
    for done, (path, motion, key) in enumerate(jobs, start=1):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            clip_seed = int(np.random.SeedSequence(key).generate_state(1)[0])
            write_clip(path, render_clip(motion, seed=clip_seed), fps=FPS)
            num_written += 1
        if progress is not None:
            progress(done, len(jobs))
    started.replace(marker)
    return num_written


def _read_settings(path: Path) -> object:
    """What a marker file says; None where there is none or it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
