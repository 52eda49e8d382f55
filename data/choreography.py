"""What a generated gymnast does: elements with a difficulty value, faults of execution, and the motion both make.

Modelled on rhythmic gymnastics, where the *difficulty* judges add up the values of the elements shown and the *execution* judges
start from 10 and take off for every fault seen. Here each element says how far its full form is reached and which faults it
shows; `perform` turns that into joint positions, `judge` into a score. Both read the same numbers, so the score
is the score of what is seen, and a fault that costs points moves the body.

Shapes: N frames, J joints. Metres: x to the right, y away from the camera, z up; the floor is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

FRAME_RATE = 25
GRAVITY = 9.81

APPARATUS = ("Ball", "Clubs", "Hoop", "Ribbon")
ELEMENT_VALUES = {"leap": 3.8, "turn": 3.6, "balance": 3.7, "throw": 3.7, "wave": 3.5}
"""Difficulty value of each kind of element in its full form; the best four make 14.8, the most a routine of RG got."""

RECOGNISED_REACH = 0.1
"""An element that shows less of its full form than this counts nothing."""

DEDUCTIONS = {"slack": 0.65, "tremble": 0.55, "wobble": 0.5, "pause": 1.2, "drop": 0.8}
"""Points of execution lost in one element by each fault: per unit of it, per second for a pause, per drop."""

LOST_SPEED = 1.6
"""A dropped apparatus that rolls away faster than this (metres a second) leaves the floor area."""
LOST_PENALTY = 0.3


@dataclass(frozen=True)
class Element:
    """One element as it is shown."""

    kind: str
    """A key of `ELEMENT_VALUES`."""
    seconds: float
    """How long it lasts, pauses included."""
    reach: float
    """Share of the full form that is reached, 0 to 1: height, split, turns, lift of the leg, throw."""
    slack: float = 0.0
    """Lack of amplitude in the whole body, 0 to 1: bent knees and elbows, hanging head, rounded back."""
    tremble: float = 0.0
    """Lack of control, 0 to 1: shaking limbs."""
    wobble: float = 0.0
    """Lack of balance, 0 to 1: the trunk sways, the arms row, the foot steps aside."""
    pause_s: float = 0.0
    """Broken rhythm: seconds for which the motion stops inside the element."""
    drop_speed: float | None = None
    """The apparatus falls and rolls away at this speed in metres a second; None: it is held."""


@dataclass(frozen=True)
class Judgement:
    """What the judges give, as RG's label files have it."""

    difficulty: float
    execution: float
    penalty: float

    @property
    def total(self) -> float:
        """Difficulty + execution - penalty."""
        return round(self.difficulty + self.execution - self.penalty, 2)


def execution_loss(element: Element) -> float:
    """Points of execution that one element's faults cost."""
    faults = {"slack": element.slack, "tremble": element.tremble, "wobble": element.wobble, "pause": element.pause_s}
    dropped = 0.0 if element.drop_speed is None else DEDUCTIONS["drop"]
    return dropped + sum(DEDUCTIONS[fault] * size for fault, size in faults.items())


def judge(elements: tuple[Element, ...]) -> Judgement:
    """Score a routine from the elements it shows.

    Args:
        elements: at most four are counted for difficulty in RG's range; all are judged for execution.

    Returns:
        Difficulty in steps of .1, execution in steps of .05 from 0 to 10, and the penalty.
    """
    difficulty = sum(ELEMENT_VALUES[e.kind] * e.reach for e in elements if e.reach >= RECOGNISED_REACH)
    execution = max(0.0, 10 - sum(map(execution_loss, elements)))
    lost = sum(e.drop_speed is not None and e.drop_speed > LOST_SPEED for e in elements)
    return Judgement(round(difficulty, 1), round(round(execution * 20) / 20, 2), round(LOST_PENALTY * lost, 2))


@dataclass(frozen=True)
class Body:
    """Proportions of a figure."""

    height_m: float = 1.66
    leg_share: float = 0.5
    """Hip height as a share of the whole height."""
    arm_share: float = 0.4
    """Arm with hand as a share of the whole height."""
    width: float = 1.0
    """Thickness of the limbs relative to a slim figure."""


JOINTS = (
    ("pelvis", "waist", "chest", "neck", "head")
    + ("shoulder_l", "elbow_l", "hand_l", "hip_l", "knee_l", "ankle_l", "toe_l")
    + ("shoulder_r", "elbow_r", "hand_r", "hip_r", "knee_r", "ankle_r", "toe_r")
)  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """A routine in space."""

    joints: np.ndarray
    """(N, J, 3) metres, in the order of `JOINTS`."""
    apparatus: np.ndarray
    """(N, 3) metres: where the apparatus is (the right hand's club, the grip of the ribbon)."""
    held: np.ndarray
    """(N,) bool: in the hand, rather than in the air or on the floor."""
    spin: np.ndarray
    """(N,) radians: how far the apparatus has turned about itself."""

    def joint(self, name: str) -> np.ndarray:
        """The path of one joint, (N, 3)."""
        return self.joints[:, JOINTS.index(name)]


# A pose is a set of angles in degrees. Trunk: `lean` forwards, `bend` of the chest further forwards, `tilt` to the left, `nod` of
# the head. Arms, measured from hanging along the trunk: `lift` forwards, `open` sideways, `elbow`. Legs, measured from
# hanging straight down: `lift` forwards, `open` sideways, `knee`; `point` of the foot from 0 flat to 1. Besides: `air` height of the
# lowest point above the floor, `forward` travelled metres, `aside` metres, `yaw` turned degrees.
READY = {
    "lean": 0.0, "bend": 0.0, "tilt": 0.0, "nod": 0.0,
    "arm_lift_l": 15.0, "arm_open_l": 40.0, "elbow_l": 10.0,
    "arm_lift_r": 25.0, "arm_open_r": 40.0, "elbow_r": 15.0,
    "leg_lift_l": -8.0, "leg_open_l": 4.0, "knee_l": 4.0, "point_l": 0.6,
    "leg_lift_r": 4.0, "leg_open_r": 4.0, "knee_r": 2.0, "point_r": 0.3,
    "air": 0.0, "forward": 0.0, "aside": 0.0, "yaw": 0.0,
}  # fmt: skip
ANGLES = tuple(READY)
CROUCH = {
    "lean": 18.0, "leg_lift_l": 40.0, "knee_l": 75.0, "leg_lift_r": 40.0, "knee_r": 75.0, "point_l": 0.0, "point_r": 0.0,
    "arm_lift_l": -30.0, "arm_lift_r": -25.0, "arm_open_l": 20.0, "arm_open_r": 20.0,
}  # fmt: skip
TRAVEL_M = {"leap": 1.3, "turn": 0.2, "balance": 0.3, "throw": 0.5, "wave": 0.2}
"""How far each kind travels, however well it is done: so that the following camera tells nothing."""

RELEASE, CATCH = 0.3, 0.8
"""When in a throw the apparatus leaves the hand and is back."""


def _key_poses(kind: str, a: float) -> dict[float, dict[str, float]]:
    """Key poses of an element whose full form is reached to the share `a`, by the phase (0 to 1) they are passed at."""
    if kind == "leap":
        flight = {
            "air": 0.06 + 0.6 * a, "lean": 5.0, "bend": -30 * a, "nod": -20 * a,
            "leg_lift_r": 20 + 78 * a, "knee_r": 55 * (1 - a), "leg_lift_l": -18 - 82 * a, "knee_l": 65 * (1 - a),
            "point_l": 1.0, "point_r": 1.0,
            "arm_lift_r": 30 + 95 * a, "arm_open_r": 25.0, "arm_lift_l": 20 + 20 * a, "arm_open_l": 40 + 55 * a,
        }  # fmt: skip
        grounded = {"air": 0.0, "leg_lift_l": -20.0, "leg_lift_r": 15.0, "point_l": 0.8, "point_r": 0.5}
        return {0.22: CROUCH, 0.32: grounded, 0.53: flight, 0.74: grounded, 0.82: CROUCH | {"knee_l": 45.0, "knee_r": 45.0}}
    if kind == "turn":
        spin = {
            "leg_open_l": 12 + 100 * a, "leg_lift_l": 45 - 25 * a, "knee_l": 105 * (1 - a), "point_l": 1.0,
            "leg_lift_r": 0.0, "leg_open_r": 0.0, "knee_r": 0.0, "point_r": 0.75, "tilt": -22 * a,
            "arm_lift_l": 40 + 120 * a, "arm_open_l": 30.0, "elbow_l": 30 - 20 * a,
            "arm_lift_r": 40 + 120 * a, "arm_open_r": 30.0, "elbow_r": 30 - 20 * a,
        }  # fmt: skip
        turned = 360.0 * (1 + round(2 * a))
        return {0.16: CROUCH | {"yaw": 0.0}, 0.32: spin | {"yaw": 0.12 * turned}, 0.82: spin | {"yaw": 0.95 * turned}, 1.0: {"yaw": turned}}
    if kind == "balance":
        hold = {
            "lean": 8 + 85 * a, "bend": -25 * a, "nod": -30 * a, "leg_lift_l": -18 - 142 * a, "knee_l": 30 * (1 - a), "point_l": 1.0,
            "leg_lift_r": 0.0, "leg_open_r": 0.0, "knee_r": 0.0, "point_r": 0.2 + 0.4 * a,
            "arm_lift_l": 60.0, "arm_open_l": 40 + 45 * a, "elbow_l": 5.0, "arm_lift_r": 60 + 70 * a, "arm_open_r": 30.0,
        }  # fmt: skip
        return {0.3: hold, 0.8: hold}
    if kind == "throw":
        swing = CROUCH | {"arm_lift_r": -20.0, "lean": 25.0}
        release = {"arm_lift_r": 150.0, "arm_open_r": 10.0, "elbow_r": 0.0, "point_l": 0.8, "point_r": 0.7, "nod": -20.0}
        below = {
            "lean": 110 * a, "bend": 10 * a, "leg_lift_l": -10 - 150 * a, "knee_l": 20 * (1 - a), "point_l": 1.0, "point_r": 0.4,
            "arm_lift_r": 60 + 60 * a, "arm_lift_l": 60 + 60 * a, "nod": -20 * (1 - a),
        }  # fmt: skip
        catch = {"arm_lift_r": 160.0, "arm_open_r": 15.0, "elbow_r": 5.0, "arm_lift_l": 60 + 60 * a, "arm_open_l": 60.0, "nod": -25.0}
        return {0.16: swing, RELEASE: release, 0.55: below, CATCH: catch}
    if kind == "wave":
        curl = {
            "lean": 10 + 35 * a, "bend": 15 + 45 * a, "nod": 20 + 20 * a, "leg_lift_r": 15.0, "knee_r": 30.0, "leg_lift_l": 15.0, "knee_l": 30.0,
            "arm_lift_l": 40.0, "arm_lift_r": 40.0,
        }  # fmt: skip
        arch = {
            "lean": -12 - 40 * a, "bend": -15 - 60 * a, "nod": -15 - 45 * a, "leg_lift_l": 5 + 95 * a, "knee_l": 25 * (1 - a), "point_l": 1.0,
            "leg_lift_r": 12 * a, "knee_r": 15 * a, "arm_lift_l": 70 + 110 * a, "arm_lift_r": 70 + 110 * a, "arm_open_l": 20.0, "arm_open_r": 20.0,
        }  # fmt: skip
        return {0.22: curl, 0.5: arch, 0.66: arch}
    raise ValueError(f"unknown kind of element {kind!r}; known are {', '.join(ELEMENT_VALUES)}")


def _phases(element: Element, frames: int) -> np.ndarray:
    """Phase of each frame, (N,): runs from 0 to 1 and stands still twice, for half of the pause each."""
    moving = element.seconds - element.pause_s
    stops = ((0.36, element.pause_s / 2), (0.68, element.pause_s / 2))
    times, phases, waited = [0.0], [0.0], 0.0
    for phase, stop_s in stops:
        times += [phase * moving + waited, phase * moving + waited + stop_s + 1e-9]
        phases += [phase, phase]
        waited += stop_s
    return np.interp(np.linspace(0, element.seconds, frames, endpoint=False), times + [element.seconds], phases + [1.0])


def _element_angles(element: Element, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The angles of every frame of one element, faults included: (N, angles)."""
    keys = {0.0: {}} | _key_poses(element.kind, element.reach)
    keys[1.0] = keys.get(1.0, {})
    end = {"forward": TRAVEL_M[element.kind], "yaw": keys[1.0].get("yaw", 0.0)}
    keys[1.0] = end
    u = _phases(element, frames)
    table = np.array([[pose.get(name, READY[name]) for name in ANGLES] for pose in keys.values()])
    times = np.array(list(keys))
    angles = PchipInterpolator(times, table)(u)
    column = dict(zip(ANGLES, angles.T, strict=True))  # views
    yaw_keys = [(t, pose["yaw"]) for t, pose in keys.items() if "yaw" in pose]
    column["yaw"][:] = PchipInterpolator(*zip((0.0, 0.0), *yaw_keys[0 if yaw_keys[0][0] else 1 :], strict=True))(u)
    column["forward"][:] = np.interp(u, [0, 1], [0, TRAVEL_M[element.kind]])

    for side in "lr":
        column[f"elbow_{side}"] += 55 * element.slack
        column[f"knee_{side}"] += 38 * element.slack
        column[f"leg_lift_{side}"] += 19 * element.slack
        column[f"arm_open_{side}"] *= 1 - 0.5 * element.slack
        column[f"point_{side}"] *= 1 - 0.8 * element.slack
    column["lean"] += 6 * element.slack
    column["bend"] += 22 * element.slack
    column["nod"] += 25 * element.slack

    if element.tremble:
        shake = gaussian_filter1d(rng.standard_normal((frames, len(ANGLES))), 0.8, axis=0, mode="nearest")
        shake /= shake.std()
        for name in ANGLES:
            scale = {"air": 0.0, "forward": 0.006, "aside": 0.006, "yaw": 2.0, "point_l": 0.05, "point_r": 0.05}.get(
                name, 3.0 if name in ("lean", "bend", "tilt", "nod") else 9.0
            )
            column[name] += element.tremble * scale * shake[:, ANGLES.index(name)]
    if element.wobble:
        rate, start = rng.uniform(1.6, 2.4), rng.uniform(0.35, 0.5)
        seconds = np.maximum(u - start, 0) * element.seconds
        sway = element.wobble * np.exp(-1.2 * seconds) * np.sin(2 * np.pi * rate * seconds) * rng.choice([-1, 1])
        column["tilt"] += 30 * sway
        column["lean"] += 10 * np.abs(sway)
        column["aside"] += 0.16 * sway
        column["leg_open_l"] += 30 * np.abs(sway)
        for side, sign in (("l", 1), ("r", -1)):
            column[f"arm_open_{side}"] += 45 * sign * sway + 25 * np.abs(sway)
    if element.drop_speed is not None:
        stoop = np.exp(-(((u - 0.86) / 0.07) ** 2))
        for name, degrees in {"lean": 65, "leg_lift_l": 30, "leg_lift_r": 45, "knee_l": 60, "knee_r": 70, "arm_lift_r": 70}.items():
            column[name] += stoop * degrees
    return angles


def _limb(length: float, lift: np.ndarray, opened: np.ndarray, side: int) -> np.ndarray:
    """Vector of a limb in the body's frame (forwards, left, up), (N, 3); angles in degrees from hanging down."""
    lift, opened = np.radians(lift), np.radians(opened)
    return length * np.stack([np.sin(lift) * np.cos(opened), side * np.sin(opened), -np.cos(lift) * np.cos(opened)], axis=-1)


def _joints(angles: np.ndarray, body: Body, facing_deg: float) -> np.ndarray:
    """Forward kinematics: (N, angles) -> (N, J, 3) metres; the lowest joint stands `air` above the floor."""
    p = dict(zip(ANGLES, angles.T, strict=True))
    h = body.height_m
    leg, arm, trunk = body.leg_share * h, body.arm_share * h, (0.82 - body.leg_share) * h
    at = {"pelvis": np.zeros((len(angles), 3))}

    def up(length: float, forwards: np.ndarray) -> np.ndarray:
        return -_limb(length, -forwards, p["tilt"], -1)

    at["waist"] = at["pelvis"] + up(0.4 * trunk, p["lean"])
    chest_lean = p["lean"] + p["bend"]
    at["chest"] = at["waist"] + up(0.5 * trunk, p["lean"] + 0.5 * p["bend"])
    at["neck"] = at["chest"] + up(0.14 * trunk, chest_lean)
    at["head"] = at["neck"] + up(0.1 * h, chest_lean + p["nod"])
    for side, sign in (("l", 1), ("r", -1)):
        shoulder_out = np.radians(p["tilt"])
        across = np.stack([np.zeros_like(shoulder_out), np.cos(shoulder_out), -np.sin(shoulder_out)], axis=-1)
        at[f"shoulder_{side}"] = at["chest"] + sign * 0.105 * h * across
        lift = p[f"arm_lift_{side}"] - chest_lean
        opened = p[f"arm_open_{side}"]
        at[f"elbow_{side}"] = at[f"shoulder_{side}"] + _limb(0.45 * arm, lift, opened, sign)
        at[f"hand_{side}"] = at[f"elbow_{side}"] + _limb(0.55 * arm, lift + p[f"elbow_{side}"], opened, sign)
        at[f"hip_{side}"] = at["pelvis"] + sign * 0.055 * h * across
        lift, opened = p[f"leg_lift_{side}"], p[f"leg_open_{side}"]
        shin_lift = lift - p[f"knee_{side}"]
        at[f"knee_{side}"] = at[f"hip_{side}"] + _limb(0.49 * leg, lift, opened, sign)
        at[f"ankle_{side}"] = at[f"knee_{side}"] + _limb(0.47 * leg, shin_lift, opened, sign)
        at[f"toe_{side}"] = at[f"ankle_{side}"] + _limb(0.12 * leg, shin_lift + 88 * (1 - p[f"point_{side}"]), opened, sign)
    local = np.stack([at[name] for name in JOINTS], axis=1)  # (N, J, 3)
    local[:, :, 2] += (p["air"] - local[:, :, 2].min(axis=1))[:, None]
    yaw = np.radians(p["yaw"] + facing_deg)
    forwards, left = local[..., 0], local[..., 1]
    x = forwards * np.cos(yaw)[:, None] - left * np.sin(yaw)[:, None] + p["forward"][:, None]
    y = forwards * np.sin(yaw)[:, None] + left * np.cos(yaw)[:, None] + p["aside"][:, None]
    return np.stack([x, y, local[..., 2]], axis=-1)


def perform(elements: tuple[Element, ...], body: Body, *, facing_deg: float = 0.0, mirrored: bool = False, seed: int = 0) -> Motion:
    """Turn a choreography into motion.

    Args:
        elements: shown one after the other.
        body: the figure's proportions.
        facing_deg: direction the figure faces, 0 in the direction of travel, positive away from the camera.
        mirrored: travel to the left rather than to the right.
        seed: of the trembling and wobbling.

    Returns:
        The motion at `FRAME_RATE`, with the middle of the travelled way at x = 0.
    """
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0.0] + [e.seconds for e in elements])
    marks = np.round(ends * FRAME_RATE).astype(int)
    angles, forward = [], 0.0
    for element, (start, stop) in zip(elements, pairwise(marks), strict=True):
        part = _element_angles(element, int(stop - start), rng)
        part[:, ANGLES.index("forward")] += forward
        forward += TRAVEL_M[element.kind]
        angles.append(part)
    table = np.concatenate(angles)
    table[:, ANGLES.index("forward")] -= forward / 2
    joints = _joints(table, body, facing_deg)
    apparatus, held, spin = _apparatus_path(elements, marks, joints[:, JOINTS.index("hand_r")])
    if mirrored:
        joints[..., 0] *= -1
        apparatus[:, 0] *= -1
    return Motion(joints, apparatus, held, spin)


def _apparatus_path(elements: tuple[Element, ...], marks: np.ndarray, hand: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the apparatus is: in the hand, thrown up and caught, or fallen and rolling away until it is fetched."""
    path, held = hand.copy(), np.ones(len(hand), dtype=bool)
    spin = np.arange(len(hand)) * (2 * np.pi * 0.6 / FRAME_RATE)
    for element, (start, stop) in zip(elements, pairwise(marks), strict=True):
        u = _phases(element, int(stop - start))
        if element.kind == "throw":
            up, down = start + int(np.searchsorted(u, RELEASE)), start + int(np.searchsorted(u, CATCH))
            share = (np.arange(up, down) - up) / (down - up)
            arc = hand[up] + share[:, None] * (hand[down] - hand[up])
            arc[:, 2] += 4 * share * (1 - share) * (0.1 + 1.1 * element.reach)
            path[up:down], held[up:down] = arc, False
            spin[up:] += np.minimum(np.arange(len(hand) - up) / (down - up), 1) * 2 * np.pi
        if element.drop_speed is not None:
            lost = start + int(np.searchsorted(u, CATCH if element.kind == "throw" else 0.4))
            found = min(lost + round(0.9 * FRAME_RATE), len(hand) - 1)
            t = (np.arange(lost, found + 1) - lost) / FRAME_RATE
            fall = hand[lost] + np.outer(t, (element.drop_speed, -0.25 * element.drop_speed, 0.0))
            landed = np.sqrt(2 * hand[lost, 2] / GRAVITY)
            bounce = np.abs(np.sin(np.pi * np.maximum(t - landed, 0) / 0.35)) * 0.25 * np.exp(-4 * np.maximum(t - landed, 0))
            fall[:, 2] = np.maximum(hand[lost, 2] - GRAVITY * t**2 / 2, 0.08 + bounce)
            fetch = np.clip((t - 0.7) / 0.2, 0, 1)[:, None]
            path[lost : found + 1] = fall * (1 - fetch) + hand[lost : found + 1] * fetch
            held[lost : found + 1] = False
            spin[lost:] += np.minimum(np.arange(len(hand) - lost) / FRAME_RATE, 0.9) * 4 * element.drop_speed
    return path, held, spin
