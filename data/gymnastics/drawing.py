"""Draw a generated routine: a figure of tapered limbs with its apparatus and its shadow, in a hall.

Shape legend: N frames, J joints, K points of one drawn part, H W a frame's pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .filming import (
    FRAME_SIZE,
    PX_PER_M,
    Colour,
    Setting,
    camera_windows,
    colour,
    paint_hall,
    project,
    shade,
)
from .motion import FRAME_RATE, JOINTS, Motion

SUPERSAMPLING = 2
SHADOW_OPACITY = 105
RIBBON_POINTS = 46

BONES = (
    ("hip_l", "hip_r", 0.07, 0.07, "leotard"),
    ("pelvis", "waist", 0.075, 0.058, "leotard"),
    ("waist", "chest", 0.058, 0.075, "leotard"),
    ("shoulder_l", "shoulder_r", 0.045, 0.045, "leotard"),
    ("chest", "neck", 0.035, 0.03, "skin"),
    *(
        (f"{start}_{side}", f"{end}_{side}", start_m, end_m, material)
        for side in "lr"
        for start, end, start_m, end_m, material in (
            ("hip", "knee", 0.066, 0.045, "skin"),
            ("knee", "ankle", 0.043, 0.024, "skin"),
            ("ankle", "toe", 0.024, 0.014, "shoe"),
            ("shoulder", "elbow", 0.034, 0.028, "leotard"),
            ("elbow", "hand", 0.027, 0.018, "skin"),
        )
    ),
)
"""Start joint, end joint, radius in metres at the start and at the end, material."""

Paint = Callable[[ImageDraw.ImageDraw, np.ndarray, float], None]
"""Draws a part, given its points (K, 2) in pixels and the scale in pixels per metre."""
Part = tuple[float, np.ndarray, Paint]
"""A part to draw: its distance in metres, its points (K, 3) in metres, and the function that draws it."""


def draw_routine(motion: Motion, apparatus: str, setting: Setting, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw a routine frame by frame.

    Args:
        motion: the motion of the figure.
        apparatus: one of `data.gymnastics.choreography.APPARATUS`.
        setting: the hall and the filming.
        seed: seed of the hall's details, the camera's path and the grain.

    Yields:
        (H, W, 3) uint8 RGB frames.
    """
    rng = np.random.default_rng(seed)
    hall = paint_hall(setting, rng)
    windows = camera_windows(setting, motion.joint("pelvis")[:, 0], rng)
    figure = Figure(motion, apparatus, setting)
    width, height = FRAME_SIZE
    # one field of noise, shifted at random in each frame, which is faster than fresh noise
    grain = np.round(rng.normal(0, setting.grain, (height + 64, width + 64, 1))).astype(np.int16)
    for index, window in enumerate(windows):
        frame = hall.resize(FRAME_SIZE, Image.Resampling.BILINEAR, box=tuple(window))
        figure.draw(frame, index, window)
        top, left = rng.integers(0, 64, 2)
        noisy = np.asarray(frame, dtype=np.int16) + grain[top : top + height, left : left + width]
        yield noisy.clip(0, 255).astype(np.uint8)


class Figure:
    """A moving figure with its apparatus, which can be drawn into frames."""

    def __init__(self, motion: Motion, apparatus: str, setting: Setting):
        skin = colour(0.065, 0.35 + 0.25 * setting.skin, 0.95 - 0.55 * setting.skin)
        self.materials = {
            "skin": skin,
            "shoe": shade(skin, 0.85),
            "leotard": colour(setting.leotard_hue, 0.8, 0.75),
            "hair": colour(0.07, 0.5, 0.27 - 0.15 * setting.skin),
        }
        self.apparatus_colour = colour(setting.leotard_hue + 0.5, 0.75, 0.9)
        self.motion = motion
        self.bones = [
            (JOINTS.index(start), JOINTS.index(end), setting.body.width * start_m, setting.body.width * end_m, material)
            for start, end, start_m, end_m, material in BONES
        ]
        self.pointing = {side: _unit(motion.joint(f"hand_{side}") - motion.joint(f"elbow_{side}")) for side in "lr"}
        self.apparatus_parts = {"Ball": self._ball, "Hoop": self._hoop, "Clubs": self._clubs, "Ribbon": self._ribbon}[
            apparatus
        ]
        circling = (
            2 * np.pi * 2.2 * np.arange(len(motion.held)) / FRAME_RATE
        )  # the wrist circles, so that the ribbon keeps moving
        wrist = 0.1 * np.stack([np.cos(circling), 0 * circling, np.sin(circling)], axis=-1)
        self.stick_tips = motion.apparatus + (0.45 * self.pointing["r"] + wrist) * motion.held[:, None]  # (N, 3)

    def draw(self, frame: Image.Image, index: int, window: np.ndarray) -> None:
        """Draw shadow, figure and apparatus.

        Args:
            frame: RGB picture of `FRAME_SIZE`; it is changed in place.
            index: index of the frame.
            window: (4,) the part of the hall's picture that the frame shows.
        """
        origin, scale = window[:2], FRAME_SIZE[0] / (window[2] - window[0])
        self._draw_shadow(frame, index, origin, scale)
        parts = sorted(
            self._parts(index), key=lambda part: -part[0]
        )  # the farthest first, so that nearer ones cover it
        pixels = [(project(points) - origin) * scale for _, points, _ in parts]
        everything = np.concatenate(pixels)
        left, top = np.floor(everything.min(axis=0) - 16).clip(0, FRAME_SIZE).astype(int).tolist()
        right, bottom = np.ceil(everything.max(axis=0) + 16).clip(0, FRAME_SIZE).astype(int).tolist()
        size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
        fine = frame.crop((left, top, right, bottom)).resize(size, Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(fine)
        for (_, _, paint), points in zip(parts, pixels, strict=True):
            paint(draw, (points - (left, top)) * SUPERSAMPLING, scale * SUPERSAMPLING * PX_PER_M)
        frame.paste(fine.reduce(SUPERSAMPLING), (left, top))

    def _draw_shadow(self, frame: Image.Image, index: int, origin: np.ndarray, scale: float) -> None:
        """Draw the shadow of a light high on the left in front; at half the resolution, which is faster."""
        half = scale / 2
        joints = self.motion.joints[index]
        pixels = (project(_cast(joints)) - origin) * half
        mask = Image.new("L", (FRAME_SIZE[0] // 2, FRAME_SIZE[1] // 2), 0)
        draw = ImageDraw.Draw(mask)
        for start, end, start_m, end_m, _ in self.bones:
            radii = 0.8 * start_m * half * PX_PER_M, 0.8 * end_m * half * PX_PER_M
            _limb(draw, pixels[start], pixels[end], *radii, SHADOW_OPACITY)
        if not self.motion.held[index]:
            x, y = (project(_cast(self.motion.apparatus[index])) - origin) * half
            rx, ry = 0.12 * half * PX_PER_M, 0.05 * half * PX_PER_M
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=SHADOW_OPACITY)
        if box := mask.getbbox():
            left, top, right, bottom = box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3
            soft = mask.crop((left, top, right, bottom)).filter(ImageFilter.BoxBlur(1))
            soft = soft.resize((2 * soft.width, 2 * soft.height), Image.Resampling.BILINEAR)
            frame.paste((12, 12, 18), (2 * left, 2 * top), soft)

    def _parts(self, index: int) -> Iterator[Part]:
        joints = self.motion.joints[index]
        for start, end, start_m, end_m, material in self.bones:
            distance = float(joints[[start, end], 1].mean())
            tone = float(np.clip(1 - 0.5 * (distance - joints[JOINTS.index("pelvis"), 1]), 0.72, 1.1))
            yield distance, joints[[start, end]], _lit_limb(start_m, end_m, shade(self.materials[material], tone))
        neck, head = JOINTS.index("neck"), JOINTS.index("head")
        yield joints[head, 1], joints[[neck, head]], self._head
        yield from self.apparatus_parts(index)

    def _head(self, draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
        neck, head = xy
        up = _unit(head - neck)
        radius = 0.092 * px_per_m
        _disc(draw, head, 0.94 * radius, self.materials["skin"])
        _disc(draw, head + 0.35 * radius * up, 0.83 * radius, self.materials["hair"])
        _disc(draw, head + 1.15 * radius * up, 0.42 * radius, self.materials["hair"])

    def _ball(self, index: int) -> Iterator[Part]:
        centre = self.motion.apparatus[index] + 0.1 * self.pointing["r"][index] * self.motion.held[index]

        def paint(draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
            radius = 0.105 * px_per_m
            _disc(draw, xy[0], radius, shade(self.apparatus_colour, 0.7))
            _disc(draw, xy[0] - 0.15 * radius, 0.75 * radius, self.apparatus_colour)

        yield centre[1] - 0.1, centre[None], paint

    def _hoop(self, index: int) -> Iterator[Part]:
        angle, turned = np.linspace(0, 2 * np.pi, 33), self.motion.spin[index]
        face = np.array([np.cos(turned), 0.35 * np.sin(turned), 0])
        ring = 0.38 * (np.outer(np.cos(angle), face) + np.outer(np.sin(angle), [0, 0.25, 0.97]))
        held = self.motion.held[index]
        centre = self.motion.apparatus[index] + (0.38 * self.pointing["r"][index] if held else np.array([0, 0, 0.3]))

        def paint(draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
            _line(draw, xy, 0.035 * px_per_m, self.apparatus_colour)

        yield centre[1] - 0.1, centre + ring, paint

    def _clubs(self, index: int) -> Iterator[Part]:
        turned = 3 * self.motion.spin[index]
        tumbling = np.array([np.cos(turned), 0, np.sin(turned)])
        right = self.pointing["r"][index] if self.motion.held[index] else tumbling
        left_hand = self.motion.joint("hand_l")[index]

        def paint(draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
            _limb(draw, xy[0], xy[1], 0.018 * px_per_m, 0.05 * px_per_m, self.apparatus_colour)

        for grip, way in ((self.motion.apparatus[index], right), (left_hand, self.pointing["l"][index])):
            yield grip[1] - 0.05, np.stack([grip, grip + 0.42 * way]), paint

    def _ribbon(self, index: int) -> Iterator[Part]:
        """Draw the ribbon: it follows the path of its stick's tip, curls and sinks; on the floor it lies in waves."""
        k = np.arange(RIBBON_POINTS)
        frames = np.arange(len(self.stick_tips))
        line = np.stack([np.interp(index - 0.36 * k, frames, axis) for axis in self.stick_tips.T], axis=-1)  # (K, 3)
        held = self.motion.held[index]
        line[:, 0] -= 0.018 * k + 0.09 * np.sin(0.5 * k) * (not held)
        line[:, 2] += 0.004 * k * np.sin(0.75 * k - 0.5 * index) * held - 0.011 * k
        line[:, 2] = line[:, 2].clip(0.02)
        grip = self.motion.apparatus[index]

        def paint(draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
            _limb(draw, xy[0], xy[1], 0.014 * px_per_m, 0.01 * px_per_m, shade(self.apparatus_colour, 0.7))
            _line(draw, xy[1:], 0.05 * px_per_m, self.apparatus_colour)

        yield grip[1] - 0.05, np.concatenate([grip[None], line]), paint


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (..., D) to length 1; a zero vector stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _cast(points: np.ndarray) -> np.ndarray:
    """Return the points (..., 3) on the floor where the shadows of points fall."""
    return points * (1, 1, 0) + points[..., 2:] * (0.22, 0.1, 0)


def _disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, fill: Colour | int) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _line(draw: ImageDraw.ImageDraw, xy: np.ndarray, width: float, fill: Colour) -> None:
    draw.line([(x, y) for x, y in xy], fill=fill, width=max(2, round(width)), joint="curve")


def _limb(
    draw: ImageDraw.ImageDraw,
    start: np.ndarray,
    end: np.ndarray,
    start_radius: float,
    end_radius: float,
    fill: Colour | int,
) -> None:
    """Draw a tapered limb with round ends."""
    along_x, along_y = _unit(end - start)
    across = np.array([-along_y, along_x])
    sides = (start + start_radius * across, end + end_radius * across)
    back = (end - end_radius * across, start - start_radius * across)
    draw.polygon([(x, y) for x, y in (*sides, *back)], fill=fill)
    _disc(draw, start, start_radius, fill)
    _disc(draw, end, end_radius, fill)


def _lit_limb(start_m: float, end_m: float, tone: Colour) -> Paint:
    """Return the function that draws a limb with light from the upper left."""

    def paint(draw: ImageDraw.ImageDraw, xy: np.ndarray, px_per_m: float) -> None:
        start_px, end_px = start_m * px_per_m, end_m * px_per_m
        _limb(draw, xy[0], xy[1], start_px, end_px, shade(tone, 0.78))
        lit = xy - 0.16 * min(start_px, end_px)
        _limb(draw, lit[0], lit[1], 0.72 * start_px, 0.72 * end_px, tone)

    return paint
