"""The motion of a generated gymnast: key poses of each element, faults added to them, and forward kinematics.

An element passes through key poses, given as angles, with smooth interpolation between them. The more of its full form
an element reaches, the further its poses are from standing. Faults bend, shake, sway or stop the pose, or drop the
apparatus.

Shape legend: N frames, A angles, J joints. Metres: x in the direction of travel, y away from the lens, z up from the
floor. Phases run from 0 to 1 within an element.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from .choreography import Element

FRAME_RATE = 25
GRAVITY = 9.81


@dataclass(frozen=True)
class Body:
    """Proportions of the figure."""

    height_m: float = 1.66
    leg_share: float = 0.5
    """Height of the hips as a share of the whole height."""
    arm_share: float = 0.4
    """Length of the arm with its hand as a share of the whole height."""
    width: float = 1.0
    """Thickness of the limbs; 1 is slim."""


JOINTS = (
    *("pelvis", "waist", "chest", "neck", "head"),
    *("shoulder_l", "elbow_l", "hand_l", "hip_l", "knee_l", "ankle_l", "toe_l"),
    *("shoulder_r", "elbow_r", "hand_r", "hip_r", "knee_r", "ankle_r", "toe_r"),
)


@dataclass(frozen=True)
class Motion:
    """The motion of a whole routine."""

    joints: np.ndarray
    """(N, J, 3) metres, in the order of `JOINTS`."""
    apparatus: np.ndarray
    """(N, 3) metres: position of the ball, the hoop's rim, the right hand's club or the ribbon's grip."""
    held: np.ndarray
    """(N,) bool: the apparatus is in the hand, not in the air or on the floor."""
    spin: np.ndarray
    """(N,) radians by which the apparatus has turned about its own axis."""

    def joint(self, name: str) -> np.ndarray:
        """Return the path of one joint, (N, 3)."""
        return self.joints[:, JOINTS.index(name)]


# --- poses ---

# Degrees. Trunk: `lean` forwards, `bend` of the chest further forwards, `tilt` to the left, `nod` of the head. Arms,
# from hanging along the trunk, and legs, from hanging straight down: `lift` forwards, `open` sideways, then the flexion
# of elbow or knee. Not in degrees: `point` of the foot, 0 flat to 1; `air`, metres from the floor to the lowest joint;
# `forward`, metres travelled. `yaw` is the turn of the whole body, in degrees.
Pose = dict[str, float]
READY: Pose = {
    "lean": 0, "bend": 0, "tilt": 0, "nod": 0,
    "arm_lift_l": 15, "arm_open_l": 40, "elbow_l": 10,
    "arm_lift_r": 25, "arm_open_r": 40, "elbow_r": 15,
    "leg_lift_l": -8, "leg_open_l": 4, "knee_l": 4, "point_l": 0.6,
    "leg_lift_r": 4, "leg_open_r": 4, "knee_r": 2, "point_r": 0.3,
    "air": 0, "forward": 0, "yaw": 0,
}  # fmt: skip
ANGLES = tuple(READY)
CROUCH: Pose = {
    "lean": 18, "arm_lift_l": -30, "arm_open_l": 20, "arm_lift_r": -25, "arm_open_r": 20,
    "leg_lift_l": 40, "knee_l": 75, "point_l": 0, "leg_lift_r": 40, "knee_r": 75, "point_r": 0,
}  # fmt: skip

HALTS = (0.17, 0.87)
"""Phases at which a broken rhythm stops: on the way into and out of the element, with the feet on the floor."""
RELEASE, CATCH = 0.3, 0.8
"""Phases at which a thrown apparatus leaves the hand and is caught."""

TRAVEL_M = {"leap": 1.3, "turn": 0.2, "balance": 0.3, "throw": 0.5, "wave": 0.2}
"""Distance that each element travels, whatever its quality: the camera's motion must not reveal the score."""
TRAVEL_PHASES = {"leap": (0.1, 0.9), "turn": (0, 0.2), "balance": (0, 0.3), "throw": (0.1, 0.8), "wave": (0, 0.25)}


def _leap(a: float) -> dict[float, Pose]:
    flight: Pose = {
        "air": 0.06 + 0.6 * a, "lean": 5, "bend": -30 * a, "nod": -20 * a,
        "leg_lift_r": 20 + 78 * a, "knee_r": 55 * (1 - a), "point_r": 1,
        "leg_lift_l": -18 - 82 * a, "knee_l": 65 * (1 - a), "point_l": 1,
        "arm_lift_r": 30 + 95 * a, "arm_open_r": 25, "arm_lift_l": 20 + 20 * a, "arm_open_l": 40 + 55 * a,
    }  # fmt: skip
    step: Pose = {"leg_lift_l": -20, "point_l": 0.8, "leg_lift_r": 15, "point_r": 0.5}
    return {0.22: CROUCH, 0.32: step, 0.53: flight, 0.74: step, 0.82: CROUCH | {"knee_l": 45, "knee_r": 45}}


def _turn(a: float) -> dict[float, Pose]:
    spin: Pose = {
        "tilt": -22 * a, "leg_lift_r": 0, "leg_open_r": 0, "knee_r": 0, "point_r": 0.75,
        "leg_lift_l": 45 - 25 * a, "leg_open_l": 12 + 100 * a, "knee_l": 105 * (1 - a), "point_l": 1,
        "arm_lift_l": 40 + 120 * a, "arm_open_l": 30, "elbow_l": 30 - 20 * a,
        "arm_lift_r": 40 + 120 * a, "arm_open_r": 30, "elbow_r": 30 - 20 * a,
    }  # fmt: skip
    turned = 360 * (1 + round(2 * a))
    return {0.16: CROUCH, 0.32: spin | {"yaw": 0.12 * turned}, 0.82: spin | {"yaw": 0.95 * turned}, 1: {"yaw": turned}}


def _balance(a: float) -> dict[float, Pose]:
    hold: Pose = {
        "lean": 8 + 85 * a, "bend": -25 * a, "nod": -30 * a,
        "leg_lift_l": -18 - 142 * a, "knee_l": 30 * (1 - a), "point_l": 1,
        "leg_lift_r": 0, "leg_open_r": 0, "knee_r": 0, "point_r": 0.2 + 0.4 * a,
        "arm_lift_l": 60, "arm_open_l": 40 + 45 * a, "elbow_l": 5, "arm_lift_r": 60 + 70 * a, "arm_open_r": 30,
    }  # fmt: skip
    return {0.3: hold, 0.8: hold}


def _throw(a: float) -> dict[float, Pose]:
    release: Pose = {"arm_lift_r": 150, "arm_open_r": 10, "elbow_r": 0, "point_l": 0.8, "point_r": 0.7, "nod": -20}
    below: Pose = {
        "lean": 110 * a, "bend": 10 * a, "nod": -20 * (1 - a), "arm_lift_l": 60 + 60 * a, "arm_lift_r": 60 + 60 * a,
        "leg_lift_l": -10 - 150 * a, "knee_l": 20 * (1 - a), "point_l": 1, "point_r": 0.4,
    }  # fmt: skip
    catch: Pose = {"arm_lift_r": 160, "arm_open_r": 15, "elbow_r": 5, "arm_lift_l": 60 + 60 * a, "arm_open_l": 60}
    return {
        0.16: CROUCH | {"lean": 25, "arm_lift_r": -20},
        RELEASE: release,
        0.55: below,
        CATCH: catch | {"nod": -25},
    }


def _wave(a: float) -> dict[float, Pose]:
    curl: Pose = {
        "lean": 10 + 35 * a, "bend": 15 + 45 * a, "nod": 20 + 20 * a, "arm_lift_l": 40, "arm_lift_r": 40,
        "leg_lift_l": 15, "knee_l": 30, "leg_lift_r": 15, "knee_r": 30,
    }  # fmt: skip
    arch: Pose = {
        "lean": -12 - 40 * a, "bend": -15 - 60 * a, "nod": -15 - 45 * a,
        "arm_lift_l": 70 + 110 * a, "arm_open_l": 20, "arm_lift_r": 70 + 110 * a, "arm_open_r": 20,
        "leg_lift_l": 5 + 95 * a, "knee_l": 25 * (1 - a), "point_l": 1, "leg_lift_r": 12 * a, "knee_r": 15 * a,
    }  # fmt: skip
    return {0.22: curl, 0.5: arch, 0.66: arch}


KEY_POSES = {"leap": _leap, "turn": _turn, "balance": _balance, "throw": _throw, "wave": _wave}
"""For each kind of element: reach -> key poses by phase. An angle that a pose does not name is as in `READY`."""


# --- elements and their faults ---


def _phases(element: Element, num_frames: int) -> np.ndarray:
    """Return the phase of each frame (N,), from 0 to 1; it stands still at both `HALTS`, for half of the pause each."""
    moving, halt = element.duration_s - element.pause_s, element.pause_s / 2
    first, second = HALTS
    times = np.array([0, first, first, second, second, 1]) * moving + np.array([0, 0, 1, 1, 2, 2]) * halt
    now = np.linspace(0, element.duration_s, num_frames, endpoint=False)
    return np.interp(now, times, [0, first, first, second, second, 1])


def _element_angles(element: Element, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the angles (N, A) of one element, faults included."""
    keys: dict[float, Pose] = {0: {}, 1: {}} | KEY_POSES[element.kind](element.reach)
    phases = sorted(keys)
    table = np.array([[keys[phase].get(name, READY[name]) for name in ANGLES] for phase in phases], dtype=float)
    u = _phases(element, num_frames)
    angles = PchipInterpolator(phases, table)(u)  # (N, A)
    pose = dict(zip(ANGLES, angles.T, strict=True))  # views: what is added to a column is added to `angles`
    pose["forward"] += TRAVEL_M[element.kind] * np.interp(u, TRAVEL_PHASES[element.kind], (0, 1))
    _slacken(pose, element.slack)
    if element.drop_speed is not None:
        _stoop(pose, u)
    _wobble(pose, element.wobble, u * element.duration_s, rng)
    shake = gaussian_filter1d(rng.standard_normal(angles.shape), 0.8, axis=0)  # up to about 8 Hz
    angles += element.tremble * TREMBLE * shake / shake.std()
    return angles


def _slacken(pose: dict[str, np.ndarray], slack: float) -> None:
    for side in "lr":
        pose[f"elbow_{side}"] += 55 * slack
        pose[f"arm_open_{side}"] *= 1 - 0.5 * slack
        pose[f"leg_lift_{side}"] += 19 * slack
        pose[f"knee_{side}"] += 38 * slack
        pose[f"point_{side}"] *= 1 - 0.8 * slack
    pose["lean"] += 6 * slack
    pose["bend"] += 22 * slack
    pose["nod"] += 25 * slack


def _wobble(pose: dict[str, np.ndarray], wobble: float, seconds: np.ndarray, rng: np.random.Generator) -> None:
    rate, start, direction = rng.uniform(1.6, 2.4), rng.uniform(0.35, 0.5) * seconds[-1], rng.choice([-1, 1])
    since = np.maximum(seconds - start, 0)
    sway = direction * wobble * np.exp(-1.2 * since) * np.sin(2 * np.pi * rate * since)
    pose["tilt"] += 24 * sway
    pose["lean"] += 14 * sway
    pose["forward"] += 0.12 * sway
    pose["leg_open_l"] += 25 * np.abs(sway)
    for side, sign in (("l", 1), ("r", -1)):
        pose[f"arm_open_{side}"] += 45 * sign * sway + 25 * np.abs(sway)


def _stoop(pose: dict[str, np.ndarray], u: np.ndarray) -> None:
    """Bend down to pick up the apparatus."""
    bow = np.exp(-(((u - 0.86) / 0.07) ** 2))
    angles = {"lean": 65, "arm_lift_r": 70, "leg_lift_l": 30, "knee_l": 60, "leg_lift_r": 45, "knee_r": 70}
    for name, degrees in angles.items():
        pose[name] += degrees * bow


_TREMBLE_OTHERWISE = {
    "lean": 3, "bend": 3, "tilt": 3, "nod": 3, "point_l": 0.05, "point_r": 0.05, "air": 0, "forward": 0.006, "yaw": 2
}  # fmt: skip
TREMBLE = np.array([_TREMBLE_OTHERWISE.get(name, 9.0) for name in ANGLES])
"""Standard deviation (A,) of the strongest trembling: 9 degrees in the limbs."""


# --- from angles to positions ---


def perform(
    elements: Sequence[Element],
    body: Body,
    *,
    facing_deg: float = 0.0,
    mirrored: bool = False,
    seed: int = 0,
) -> Motion:
    """Turn a performance into motion.

    Args:
        elements: the elements, one after the other.
        body: the figure's proportions.
        facing_deg: direction in which the figure faces: 0 in the direction of travel, 90 away from the lens.
        mirrored: travel towards -x.
        seed: seed of the trembling and wobbling.

    Returns:
        The motion at `FRAME_RATE`; the middle of the travelled path is at x = 0.
    """
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0.0, *(element.duration_s for element in elements)])
    marks = [round(end * FRAME_RATE) for end in ends]
    travelled = np.cumsum([0.0, *(TRAVEL_M[element.kind] for element in elements)])
    forward = ANGLES.index("forward")
    pieces = []
    for element, start_m, (start, stop) in zip(elements, travelled[:-1], pairwise(marks), strict=True):
        angles = _element_angles(element, stop - start, rng)
        angles[:, forward] += start_m - travelled[-1] / 2
        pieces.append(angles)
    joints = _joints(np.concatenate(pieces), body, facing_deg)
    apparatus, held, spin = _apparatus_path(elements, marks, joints[:, JOINTS.index("hand_r")])
    if mirrored:
        joints[..., 0] *= -1
        apparatus[:, 0] *= -1
    return Motion(joints, apparatus, held, spin)


def _limb(length_m: float, lift: np.ndarray, opened: np.ndarray, side: int) -> np.ndarray:
    """Return a limb (N, 3) as (forwards, left, up), from its angles in degrees; side is 1 for left, -1 for right."""
    lift, opened = np.radians(lift), np.radians(opened)
    towards = (np.sin(lift) * np.cos(opened), side * np.sin(opened), -np.cos(lift) * np.cos(opened))
    return length_m * np.stack(towards, axis=-1)


def _joints(angles: np.ndarray, body: Body, facing_deg: float) -> np.ndarray:
    """Forward kinematics: angles (N, A) -> joints (N, J, 3) in metres."""
    pose = dict(zip(ANGLES, angles.T, strict=True))
    height = body.height_m
    leg, arm, trunk = body.leg_share * height, body.arm_share * height, (0.82 - body.leg_share) * height
    lean, tilt = pose["lean"], pose["tilt"]
    chest_lean = lean + pose["bend"]
    across = np.stack([0 * tilt, np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))], axis=-1)  # to the left

    at = {"pelvis": np.zeros((len(angles), 3))}
    at["waist"] = at["pelvis"] - _limb(0.4 * trunk, -lean, tilt, -1)
    at["chest"] = at["waist"] - _limb(0.5 * trunk, -lean - 0.5 * pose["bend"], tilt, -1)
    at["neck"] = at["chest"] - _limb(0.14 * trunk, -chest_lean, tilt, -1)
    at["head"] = at["neck"] - _limb(0.1 * height, -chest_lean - pose["nod"], tilt, -1)
    for s, side in (("l", 1), ("r", -1)):
        lift, opened = pose[f"arm_lift_{s}"] - chest_lean, pose[f"arm_open_{s}"]
        at[f"shoulder_{s}"] = at["chest"] + side * 0.105 * height * across
        at[f"elbow_{s}"] = at[f"shoulder_{s}"] + _limb(0.45 * arm, lift, opened, side)
        at[f"hand_{s}"] = at[f"elbow_{s}"] + _limb(0.55 * arm, lift + pose[f"elbow_{s}"], opened, side)
        lift, opened = pose[f"leg_lift_{s}"], pose[f"leg_open_{s}"]
        shin = lift - pose[f"knee_{s}"]
        at[f"hip_{s}"] = at["pelvis"] + side * 0.055 * height * across
        at[f"knee_{s}"] = at[f"hip_{s}"] + _limb(0.49 * leg, lift, opened, side)
        at[f"ankle_{s}"] = at[f"knee_{s}"] + _limb(0.47 * leg, shin, opened, side)
        at[f"toe_{s}"] = at[f"ankle_{s}"] + _limb(0.12 * leg, shin + 88 * (1 - pose[f"point_{s}"]), opened, side)

    forwards, left, up = np.moveaxis(np.stack([at[name] for name in JOINTS], axis=1), -1, 0)  # each (N, J)
    yaw = np.radians(pose["yaw"] + facing_deg)[:, None]
    x = forwards * np.cos(yaw) - left * np.sin(yaw) + pose["forward"][:, None]
    y = forwards * np.sin(yaw) + left * np.cos(yaw)
    z = up - up.min(axis=1, keepdims=True) + pose["air"][:, None]  # the lowest joint is `air` above the floor
    return np.stack([x, y, z], axis=-1)


def _apparatus_path(
    elements: Sequence[Element], marks: Sequence[int], hand: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the apparatus' path, `held` and `spin`: in the hand, thrown and caught, or dropped and picked up."""
    path, held = hand.copy(), np.ones(len(hand), dtype=bool)
    frames = np.arange(len(hand))
    spin = 2 * np.pi * 0.6 * frames / FRAME_RATE
    for element, (start, stop) in zip(elements, pairwise(marks), strict=True):
        u = _phases(element, stop - start)
        release, catch, slip = (start + int(np.searchsorted(u, phase)) for phase in (RELEASE, CATCH, 0.4))
        if element.kind == "throw":
            share = (frames[release:catch] - release)[:, None] / (catch - release)
            path[release:catch] = hand[release] + share * (hand[catch] - hand[release])
            path[release:catch, 2:] += 4 * share * (1 - share) * (0.1 + 1.1 * element.reach)
            held[release:catch] = False
            spin += 2 * np.pi * np.clip((frames - release) / (catch - release), 0, 1)
            slip = catch
        if element.drop_speed is not None:
            t = (frames[slip : slip + round(0.9 * FRAME_RATE)] - slip) / FRAME_RATE
            lying = slice(slip, slip + len(t))
            fall = hand[slip] + np.outer(t, (element.drop_speed, -0.25 * element.drop_speed, 0))
            landed = np.maximum(t - np.sqrt(2 * hand[slip, 2] / GRAVITY), 0)
            bounce = 0.25 * np.exp(-4 * landed) * np.abs(np.sin(np.pi * landed / 0.35))
            fall[:, 2] = np.maximum(hand[slip, 2] - GRAVITY * t**2 / 2, 0.08 + bounce)
            picked_up = np.clip((t - 0.7) / 0.2, 0, 1)[:, None]  # the last 0.2 s lead back to the hand
            path[lying] = (1 - picked_up) * fall + picked_up * hand[lying]
            held[lying] = False
            spin += 4 * element.drop_speed * np.clip((frames - slip) / FRAME_RATE, 0, 0.9)
    return path, held, spin
