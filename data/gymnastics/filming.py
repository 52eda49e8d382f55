"""The filming of a generated routine: the hall, its colours, and the camera that follows the figure.

A hall is painted once, as one wide picture seen from a fixed point. The camera cuts a moving, zooming window out of
this picture. The figure is projected into the same plane, so figure, shadow and hall share one perspective. A
`Setting` holds everything that varies here; nothing in this file depends on a score.

Shape legend: N frames. Metres as in `data.gymnastics.motion`; pixels are those of the hall's picture, y downwards.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .motion import Body

FRAME_SIZE = (400, 256)
"""Width and height of a frame. The recipes' centre crop of 300 x 224 holds the whole figure."""

LENS_HEIGHT_M, LENS_DISTANCE_M = 1.9, 9.0
FOCAL_PX = 810.0
PX_PER_M = FOCAL_PX / LENS_DISTANCE_M
"""Scale of the hall's picture where the figure stands."""
LOOK_AT_HEIGHT_M = 1.12
WALL_Y_M, FRONT_Y_M = 6.0, -4.5
HALL_SIZE = (1500, 460)
HORIZON = (750, 190)
"""The pixel straight ahead of the lens."""

Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, np.random.Generator, Colour, float], None]
CameraPath = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """Everything about a routine that varies independently of its score."""

    wall: str
    """A key of `WALLS`."""
    floor: str
    """A key of `FLOORS`."""
    camera: str
    """A key of `CAMERAS`."""
    wall_hue: float
    """0 to 1."""
    floor_hue: float
    """0 to 1."""
    leotard_hue: float
    """0 to 1; the apparatus has the opposite hue."""
    skin: float
    """0 pale to 1 dark."""
    brightness: float
    """Brightness of the hall, 0 dark to 1 bright."""
    detail: float
    """Contrast of the patterns on wall and floor, 0 to 1."""
    camera_travel: float
    """How far the camera moves away from the figure, 0 to 1."""
    zoom: float
    """Size of the figure; 1 is 90 pixels per metre."""
    grain: float
    """Standard deviation of the sensor's noise, in grey levels."""
    mirrored: bool
    """The figure travels to the left."""
    facing_deg: float
    """How far the figure is turned from its profile, away from the lens."""
    body: Body
    """Proportions of the figure."""


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return the 8-bit RGB of a hue (taken modulo 1), a saturation and a value from 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def shade(base: Colour, factor: float) -> Colour:
    """Return a darker (factor below 1) or brighter colour."""
    red, green, blue = (min(255, round(channel * factor)) for channel in base)
    return red, green, blue


def project(points: np.ndarray) -> np.ndarray:
    """Project points (..., 3) in metres to pixels (..., 2)."""
    scale = FOCAL_PX / (points[..., 1] + LENS_DISTANCE_M)
    x = HORIZON[0] + scale * points[..., 0]
    y = HORIZON[1] + scale * (LENS_HEIGHT_M - points[..., 2])
    return np.stack([x, y], axis=-1)


# --- the hall ---


def paint_hall(setting: Setting, rng: np.random.Generator) -> Image.Image:
    """Return the hall as one wide picture of `HALL_SIZE`."""
    wall = colour(setting.wall_hue, 0.38, 0.3 + 0.45 * setting.brightness)
    floor = colour(setting.floor_hue, 0.3, 0.42 + 0.45 * setting.brightness)
    hall = Image.new("RGB", HALL_SIZE, wall)
    WALLS[setting.wall](ImageDraw.Draw(hall), rng, wall, setting.detail)
    hall = hall.filter(ImageFilter.BoxBlur(2))  # out of focus
    draw = ImageDraw.Draw(hall)
    _on_floor(draw, [(-30, -6.5), (30, -6.5), (30, WALL_Y_M), (-30, WALL_Y_M)], floor)
    FLOORS[setting.floor](draw, rng, floor, setting.detail)
    return hall.filter(ImageFilter.BoxBlur(0.6))


def _on_wall(draw: ImageDraw.ImageDraw, x0: float, x1: float, z0: float, z1: float, fill: Colour) -> None:
    """Paint a rectangle on the wall, corners in metres."""
    (left, top), (right, bottom) = project(np.array([[x0, WALL_Y_M, z1], [x1, WALL_Y_M, z0]]))
    draw.rectangle((left, top, right, bottom), fill=fill)


def _on_floor(draw: ImageDraw.ImageDraw, corners: list[tuple[float, float]], fill: Colour) -> None:
    """Paint a polygon on the floor, corners (x, y) in metres."""
    pixels = project(np.array([(x, y, 0.0) for x, y in corners]))
    draw.polygon([(x, y) for x, y in pixels], fill=fill)


def _stands(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Rows of spectators."""
    for z in np.arange(1.0, 6.3, 0.62):
        _on_wall(draw, -16, 16, z - 0.3, z - 0.2, shade(base, 1 - 0.4 * detail))
        for x in np.arange(-14, 14, 0.55):
            if rng.random() < 0.8:
                tone = shade(base, 1 + detail * rng.uniform(-0.75, 0.75))
                px, py = project(np.array([x + rng.uniform(-0.15, 0.15), WALL_Y_M, z]))
                draw.ellipse((px - 6, py - 7, px + 6, py + 5), fill=tone)
                draw.rectangle((px - 9, py + 5, px + 9, py + 20), fill=shade(tone, 0.8))


def _boards(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Advertising boards along the floor, a plain wall above."""
    x = -14.0
    while x < 14:
        width = rng.uniform(1.4, 3.0)
        _on_wall(draw, x, x + width - 0.08, 0.05, 1.1, shade(base, 1 + detail * rng.uniform(-0.7, 0.7)))
        for stroke in range(rng.integers(1, 4)):
            left = x + 0.2 + 0.4 * stroke
            _on_wall(draw, left, left + 0.25, 0.4, 0.75, shade(base, 1 + detail * rng.uniform(-0.9, 0.9)))
        x += width
    _on_wall(draw, -16, 16, 3.4, 3.6, shade(base, 1 - 0.3 * detail))


def _curtain(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """A curtain in folds."""
    x = -14.0
    while x < 14:
        fold = rng.uniform(0.3, 0.9)
        for part, tone in enumerate(np.linspace(1 - 0.45 * detail, 1 + 0.3 * detail, 5)):
            _on_wall(draw, x + part * fold / 5, x + (part + 1) * fold / 5, 0, 7, shade(base, tone))
        x += fold


def _windows(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Tall windows."""
    step = rng.uniform(2.2, 3.0)
    bars = shade(base, 1 - 0.4 * detail)
    for x in np.arange(-14, 14, step):
        _on_wall(draw, x, x + 0.62 * step, 1.6, 5.5, shade(base, 1 + 0.6 * detail))
        for z in (2.8, 4.1):
            _on_wall(draw, x, x + 0.62 * step, z, z + 0.08, bars)
        _on_wall(draw, x + 0.3 * step, x + 0.33 * step, 1.6, 5.5, bars)


def _arches(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """A row of dark arches."""
    step, tone = rng.uniform(2.6, 3.6), shade(base, 1 - 0.55 * detail)
    for x in np.arange(-14, 14, step):
        _on_wall(draw, x, x + 0.6 * step, 0, 2.6, tone)
        (left, top), (right, bottom) = project(
            np.array([[x, WALL_Y_M, 2.6 + 0.3 * step], [x + 0.6 * step, WALL_Y_M, 2.6 - 0.3 * step]])
        )
        draw.ellipse((left, top, right, bottom), fill=tone)


def _panels(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Wooden panels in uneven tones."""
    for z in np.arange(0, 7, 0.9):
        x = -14.0 - rng.random()
        while x < 14:
            width = rng.uniform(0.8, 2.6)
            _on_wall(draw, x, x + width - 0.05, z, z + 0.85, shade(base, 1 + detail * rng.uniform(-0.4, 0.4)))
            x += width


def _pennants(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Pennants hanging down."""
    x = -14.0
    while x < 14:
        width, tone = rng.uniform(0.7, 1.3), shade(base, 1 + detail * rng.choice([-1, 1]) * rng.uniform(0.4, 0.8))
        corners = project(np.array([[x, WALL_Y_M, 6], [x + width, WALL_Y_M, 6], [x + width / 2, WALL_Y_M, 1.6]]))
        draw.polygon([(px, py) for px, py in corners], fill=tone)
        x += width + rng.uniform(0.1, 0.7)


def _lights(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Pools of light."""
    for x in np.arange(-13, 13, rng.uniform(1.8, 2.6)):
        px, py = project(np.array([x, WALL_Y_M, rng.uniform(1.5, 3.5)]))
        for size in (60, 44, 28):
            tone = shade(base, 1 + 0.8 * detail * (1 - size / 75))
            draw.ellipse((px - size, py - 1.3 * size, px + size, py + 1.3 * size), fill=tone)


WALLS: dict[str, Painter] = {
    "stands": _stands, "boards": _boards, "curtain": _curtain, "windows": _windows,
    "arches": _arches, "panels": _panels, "pennants": _pennants, "lights": _lights,
}  # fmt: skip
"""Patterns of the wall, painted in shades of its colour."""


def _carpet(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """A carpet with a border."""
    for margin, tone in ((0.0, 1 - 0.35 * detail), (0.5, 1.0)):
        x, front, back = 6.5 - margin, margin - 4, 4.5 - margin
        _on_floor(draw, [(-x, front), (x, front), (x, back), (-x, back)], shade(base, tone))


def _tiles(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """A chequered floor."""
    for i in range(-12, 12):
        for j in range(i % 2, 9, 2):
            y = FRONT_Y_M + 1.15 * j
            _on_floor(draw, [(i, y), (i + 1, y), (i + 1, y + 1.15), (i, y + 1.15)], shade(base, 1 - 0.2 * detail))


def _planks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Planks running away from the lens."""
    for x in np.arange(-13, 13, 0.45):
        tone = shade(base, 1 + 0.22 * detail * rng.uniform(-1, 1))
        _on_floor(draw, [(x, FRONT_Y_M), (x + 0.42, FRONT_Y_M), (x + 0.42, WALL_Y_M), (x, WALL_Y_M)], tone)


def _rings(draw: ImageDraw.ImageDraw, rng: np.random.Generator, base: Colour, detail: float) -> None:
    """Rings around the middle of the floor."""
    angles = np.linspace(0, 2 * np.pi, 60)
    for radius, tone in ((5.5, 1 - 0.3 * detail), (4.9, 1.0), (2.2, 1 - 0.2 * detail), (1.9, 1.0)):
        _on_floor(draw, [(radius * np.cos(t), 0.8 * radius * np.sin(t)) for t in angles], shade(base, tone))


FLOORS: dict[str, Painter] = {"carpet": _carpet, "tiles": _tiles, "planks": _planks, "rings": _rings}
"""Patterns of the floor, painted in shades of its colour."""


# --- the camera ---


def camera_windows(setting: Setting, figure_x_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part of the hall's picture that each frame shows.

    Args:
        setting: the camera's path and zoom.
        figure_x_m: (N,) the figure's position.
        rng: random numbers for the camera's path.

    Returns:
        (N, 4) left, top, right and bottom, with the aspect ratio of `FRAME_SIZE`.
    """
    time = np.linspace(0, 1, len(figure_x_m))
    aside, up, nearer = CAMERAS[setting.camera](time, rng)
    followed = np.polynomial.Polynomial.fit(time, figure_x_m, 3)(time)  # a cubic: smooth, whatever the figure does
    x = HORIZON[0] + PX_PER_M * followed + 55 * setting.camera_travel * aside
    y = HORIZON[1] + PX_PER_M * (LENS_HEIGHT_M - LOOK_AT_HEIGHT_M) - 16 * setting.camera_travel * up
    zoom = setting.zoom * (1 + 0.14 * setting.camera_travel * nearer)
    half_width, half_height = FRAME_SIZE[0] / 2 / zoom, FRAME_SIZE[1] / 2 / zoom
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _pan(t, rng):
    return rng.choice([-1, 1]) * (2 * t - 1), 0 * t, 0 * t


def _sway(t, rng):
    return np.sin(2 * np.pi * (t * rng.uniform(1.2, 2.2) + rng.random())), 0 * t, 0 * t


def _push_in(t, rng):
    return 0.5 * np.sin(np.pi * t + rng.random()), 0 * t, 2 * t - 1


def _still(t, rng):
    return 0 * t, 0 * t, 0 * t


def _pull_out(t, rng):
    return 0.5 * np.cos(np.pi * t + rng.random()), 0 * t, 1 - 2 * t


def _rise(t, rng):
    return 0.6 * (2 * t - 1), np.sin(np.pi * t) - 0.5, 0 * t


def _arc(t, rng):
    phase = 2 * np.pi * (0.8 * t + rng.random())
    return np.cos(phase), 0.6 * np.sin(phase), 0 * t


def _handheld(t, rng):
    def drift(rate):
        return sum(np.sin(2 * np.pi * (rate * k * t + rng.random())) / k for k in (1, 2, 3)) / 1.8

    return drift(1.3), 0.7 * drift(1.1), 0.4 * drift(0.7)


CAMERAS: dict[str, CameraPath] = {
    "pan": _pan, "sway": _sway, "push_in": _push_in, "still": _still,
    "pull_out": _pull_out, "rise": _rise, "arc": _arc, "handheld": _handheld,
}  # fmt: skip
"""Camera paths relative to the figure: time from 0 to 1 -> sideways, up and nearer, each about -1 to 1."""
