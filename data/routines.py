"""Generated routines with known scores: videos, RG's label files, and the record of how each was made.

They stand in where no footage may be shipped: the whole path from a video file to a score runs on them. What a gymnast
shows (which elements, how fully, with which faults) is all the judge sees; how she is filmed (hall, colours, figure,
camera, duration) is drawn apart from it. Which showing meets which filming is a restricted randomisation, as in the
design of experiments: of many random pairings, the one in which brightness, movement of the picture, grain and duration
go least with the score, so that a set of this size has no accidental shortcut. Halls, floors, hues, figures and camera
ways of the unseen routines occur in no training routine.

A folder of routines holds `videos/Ball_001.mp4` and so on, `train.txt` and `test.txt` in RG's label format, and
`routines.jsonl`, a line a routine.
"""

import io
import json
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from scipy.stats import rankdata, spearmanr

from .files import write_atomic
from .gymnastics.choreography import APPARATUS, Element, Judgement, compose, judge
from .gymnastics.drawing import draw_routine
from .gymnastics.filming import CAMERAS, FLOORS, FRAME_SIZE, WALLS, Setting
from .gymnastics.motion import FRAME_RATE, Body, perform

GENERATOR_VERSION = 1
"""Raised when the same seed would give other pictures, so that routines of an older generator are drawn anew."""

PARTS = ("train", "test")
NUM_TRAIN, NUM_TEST = 66, 34
DURATION_S = (4.0, 6.0)
MAX_WORKERS = 8

LABEL_HEADER = "Video_Name\tDifficulty_Score\tExecution_Score\tTotal_Score\tPenalty\tVideo_length"

NUM_BINS = 12
"""Hues and proportions are drawn from this many bins: the even ones in training, the odd ones in the unseen part."""
NUM_ORDERS = 2000
"""Random pairings of showings and filmings, of which one is taken."""


@dataclass(frozen=True)
class Routine:
    """One generated routine: everything that decides its video."""

    name: str
    """As in RG, apparatus and number: `Ball_001`."""
    part: str
    """`train` or `test`."""
    elements: tuple[Element, ...]
    """What is shown."""
    setting: Setting
    """How it is filmed."""
    judgement: Judgement
    """What `judge` gives for the elements."""
    seed: int
    """Of trembling, the hall's details, the camera's way and the grain."""

    @property
    def apparatus(self) -> str:
        """One of `APPARATUS`."""
        return self.name.split("_")[0]

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last element's end."""
        return sum(element.duration_s for element in self.elements)

    def record(self) -> str:
        """All of it as a line of JSON."""
        scores = {**asdict(self.judgement), "total": self.judgement.total}
        return json.dumps({**asdict(self), "judgement": scores, "generator": GENERATOR_VERSION})


# --- what is shown, and how it is filmed ---


def plan_routines(*, seed: int = 0, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST) -> list[Routine]:
    """Decide everything about a set of routines without drawing it.

    Args:
        seed: another seed is another set of gymnasts, halls and performances.
        num_train: routines of the training part.
        num_test: routines of the unseen part.

    Returns:
        The training part, then the unseen part. In each, every level of skill is there, and every apparatus at every
        level.

    Raises:
        ValueError: a part of fewer than two routines.
    """
    routines: list[Routine] = []
    for part, count in zip(PARTS, (num_train, num_test), strict=True):
        if count < 2:
            raise ValueError(f"{count} {part} routines are too few to rank; ask for 2 or more")
        rng = np.random.default_rng([seed, PARTS.index(part)])
        skills = (np.arange(count) + rng.random(count)) / count
        apparatus = np.concatenate([rng.permutation(APPARATUS) for _ in range(0, count, len(APPARATUS))])
        durations = rng.uniform(*DURATION_S, count)
        durations = durations[_balanced_order(skills, durations[:, None], rng)]
        shown = [compose(skill, duration_s, rng) for skill, duration_s in zip(skills, durations, strict=True)]
        settings = [_film(part, rng) for _ in range(count)]
        totals = np.array([judge(elements).total for elements in shown])
        settings = [settings[i] for i in _balanced_order(totals, np.array([_trivia(s) for s in settings]), rng)]
        seeds = rng.integers(2**31, size=count).tolist()
        for index in rng.permutation(count):
            kind = str(apparatus[index])
            number = 1 + sum(routine.apparatus == kind for routine in routines)
            name, scores = f"{kind}_{number:03d}", judge(shown[index])
            routines.append(Routine(name, part, shown[index], settings[index], scores, seeds[index]))
    return routines


def _film(part: str, rng: np.random.Generator) -> Setting:
    """Draw how a routine is filmed, out of what its part has to itself."""

    def own(low: float, high: float) -> float:
        """A number of the part's own bins, away from their edges."""
        place = 2 * rng.integers(NUM_BINS // 2) + PARTS.index(part) + rng.uniform(0.15, 0.85)
        return round(float(low + (high - low) * place / NUM_BINS), 4)

    def own_kind(kinds: Collection[str]) -> str:
        """A kind out of the part's own half."""
        half = len(kinds) // 2
        return str(rng.choice(list(kinds)[:half] if part == "train" else list(kinds)[half:]))

    return Setting(
        wall=own_kind(WALLS),
        floor=own_kind(FLOORS),
        camera=own_kind(CAMERAS),
        wall_hue=own(0, 1),
        floor_hue=own(0, 1),
        leotard_hue=own(0, 1),
        skin=own(0, 1),
        brightness=round(rng.random(), 3),
        detail=round(rng.uniform(0.2, 1), 3),
        camera_travel=round(rng.random(), 3),
        zoom=round(rng.uniform(1.0, 1.12), 3),
        grain=round(rng.uniform(0.5, 4), 2),
        mirrored=bool(rng.random() < 0.5),
        facing_deg=round(rng.uniform(-25, 25), 1),
        body=Body(height_m=own(1.55, 1.76), leg_share=own(0.47, 0.54), arm_share=own(0.36, 0.43), width=own(0.85, 1.3)),
    )


def _balanced_order(levels: np.ndarray, measures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of random orders (N,) of the rows of measures (N, M), the one whose ranks go least with those of the levels."""
    middle = (len(levels) + 1) / 2
    orders = np.stack([rng.permutation(len(levels)) for _ in range(NUM_ORDERS)])  # (P, N)
    ranks = rankdata(measures, axis=0)[orders] - middle  # (P, N, M)
    together = np.einsum("n,pnm->pm", rankdata(levels) - middle, ranks)
    return orders[np.abs(together).max(axis=1).argmin()]


def _trivia(setting: Setting) -> tuple[float, ...]:
    """What mean brightness, change from frame to frame and file size will mostly depend on."""
    passing = setting.camera_travel * (0.3 + setting.detail) * (0.4 + setting.brightness)
    return setting.brightness, setting.detail, setting.camera_travel, setting.grain, setting.zoom, passing


# --- files ---


def render_routines(
    folder: Path,
    *,
    seed: int = 0,
    num_train: int = NUM_TRAIN,
    num_test: int = NUM_TEST,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Routine]:
    """Write a set of routines. What an earlier run of the same plan, whole or interrupted, has left is kept.

    Args:
        folder: gets `videos/`, `train.txt`, `test.txt` and `routines.jsonl`; routines of another plan are replaced.
        seed: the same seed gives the same bytes on one machine.
        num_train: routines of the training part.
        num_test: routines of the unseen part.
        workers: processes that draw; None: one a core, at most `MAX_WORKERS`.
        on_progress: called with the number of routines there are, and of all.

    Returns:
        The routines, training part first.
    """
    routines = plan_routines(seed=seed, num_train=num_train, num_test=num_test)
    videos = {routine.name: Path(folder) / "videos" / f"{routine.name}.mp4" for routine in routines}
    records = Path(folder) / "routines.jsonl"
    planned = {routine.name: routine.record() for routine in routines}
    for line in records.read_text().splitlines() if records.exists() else ():
        name = json.loads(line)["name"]
        if planned.get(name) != line:
            (Path(folder) / "videos" / f"{name}.mp4").unlink(missing_ok=True)
    write_atomic(records, "".join(f"{line}\n" for line in planned.values()).encode())
    for part in PARTS:
        labels = label_file(routine for routine in routines if routine.part == part)
        write_atomic(Path(folder) / f"{part}.txt", labels.encode())

    jobs = [(routine, videos[routine.name]) for routine in routines if not videos[routine.name].exists()]
    report = on_progress or (lambda done, total: None)
    report(len(routines) - len(jobs), len(routines))
    for number, _ in enumerate(_in_processes(write_video, jobs, workers), start=1):
        report(len(routines) - len(jobs) + number, len(routines))
    return routines


def write_video(routine: Routine, path: Path) -> None:
    """Draw a routine and write it as H.264 in MP4, whole or not at all; the same routine gives the same bytes."""
    setting = routine.setting
    motion = perform(
        routine.elements,
        setting.body,
        facing_deg=setting.facing_deg,
        mirrored=setting.mirrored,
        seed=routine.seed,
    )
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "23", "preset": "ultrafast"})
        stream.width, stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in draw_routine(motion, routine.apparatus, setting, seed=routine.seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    write_atomic(path, content.getvalue())


def label_file(routines: Iterable[Routine]) -> str:
    """The judges' scores in RG's label format."""
    lines = [LABEL_HEADER]
    for routine in sorted(routines, key=lambda routine: routine.name):
        given = routine.judgement
        numbers = (given.difficulty, given.execution, given.total, given.penalty, routine.duration_s)
        lines.append("\t".join([routine.name, *(f"{number:.2f}" for number in numbers)]))
    return "\n".join(lines) + "\n"


def _in_processes(
    work: Callable[[Routine, Path], None], jobs: list[tuple[Routine, Path]], workers: int | None
) -> Iterator[None]:
    """Yield once for every job that is done, in any order; a failed job raises what it raised."""
    workers = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), len(jobs))
    if workers < 2:
        for job in jobs:
            work(*job)
            yield
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_alone) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts_alone() -> None:
    """Ctrl-C reaches every process; only the parent answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- shortcuts ---


def confounds(folder: Path) -> dict[str, float]:
    """How trivial measures of the unseen routines' videos go with their Total score.

    Args:
        folder: as `render_routines` left it; only its files are read.

    Returns:
        SRCC with Total of `brightness` (mean grey level), `frame_difference` (mean absolute change of a grey level from
        frame to frame), `duration` and `file_size`.
    """
    rows = [line.split() for line in (Path(folder) / "test.txt").read_text().splitlines()[1:]]
    measured = [_measures(Path(folder) / "videos" / f"{row[0]}.mp4") for row in rows]
    totals = [float(row[3]) for row in rows]
    return {
        measure: float(spearmanr([values[measure] for values in measured], totals).statistic) for measure in measured[0]
    }


def _measures(video: Path) -> dict[str, float]:
    with av.open(str(video)) as container:
        grey = [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]
    return {
        "brightness": float(np.mean([frame.mean() for frame in grey])),
        "frame_difference": float(np.mean([np.abs(after - before).mean() for before, after in pairwise(grey)])),
        "duration": len(grey) / FRAME_RATE,
        "file_size": float(video.stat().st_size),
    }
