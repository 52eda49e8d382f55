"""Generated routines with known scores: videos, label files in RG's format, and a record of how each was made.

They replace real footage, which may not be shipped, so that everything from a video file to a score can be run. The
score depends only on the performance: the elements, how fully each is shown, and its faults. The filming (hall,
colours, figure, camera, duration) is drawn independently of the performance.

Performances are paired with filmings by restricted randomisation, as in the design of experiments. Of many random
pairings, the one is taken in which brightness, camera movement, grain and duration correlate least with the score. So
a small set has no accidental shortcut. The test routines have halls, floors, hues, figures and camera paths that occur
in no training routine.

A folder of routines holds `videos/Ball_001.mp4` and so on, `train.txt` and `test.txt` in RG's label format, and
`routines.jsonl` with one line per routine.
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

GENERATOR_VERSION = 2
"""Increase it when the same seed gives other pictures; the routines of older versions are then drawn again."""

COMMENT = "generated routine of cofinal"
"""In every video's comment tag, by which extraction and training know it (`extractors.video`)."""
PARTS = ("train", "test")
NUM_TRAIN, NUM_TEST = 66, 34
DURATION_S = (4.0, 6.0)
MAX_WORKERS = 8

LABEL_HEADER = "Video_Name\tDifficulty_Score\tExecution_Score\tTotal_Score\tPenalty\tVideo_length"

NUM_BINS = 12
"""Hues and proportions are drawn from this many bins: the even bins for training, the odd ones for the test part."""
NUM_ORDERS = 2000
"""Random pairings of performances and filmings, from which the least correlated one is taken."""


@dataclass(frozen=True)
class Routine:
    """One generated routine: everything that determines its video."""

    name: str
    """Apparatus and number, as in RG: `Ball_001`."""
    part: str
    """`train` or `test`."""
    elements: tuple[Element, ...]
    """The performance."""
    setting: Setting
    """The filming."""
    judgement: Judgement
    """The scores that `judge` gives for the elements."""
    seed: int
    """Seed of the trembling, the hall's details, the camera's path and the grain."""

    @property
    def apparatus(self) -> str:
        """One of `APPARATUS`."""
        return self.name.split("_")[0]

    @property
    def duration_s(self) -> float:
        """Duration of all elements in seconds."""
        return sum(element.duration_s for element in self.elements)

    def record(self) -> str:
        """Return all fields and the total score as one line of JSON."""
        scores = {**asdict(self.judgement), "total": self.judgement.total}
        return json.dumps({**asdict(self), "judgement": scores, "generator": GENERATOR_VERSION})


# --- performances and filmings ---


def plan_routines(*, seed: int = 0, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST) -> list[Routine]:
    """Determine everything about a set of routines without drawing it.

    Args:
        seed: another seed gives other gymnasts, halls and performances.
        num_train: number of training routines.
        num_test: number of test routines.

    Returns:
        The training routines, then the test routines. Each part has every level of skill, with every apparatus.

    Raises:
        ValueError: a part would have fewer than two routines.
    """
    routines: list[Routine] = []
    for part, count in zip(PARTS, (num_train, num_test), strict=True):
        if count < 2:
            raise ValueError(f"{count} {part} routines are too few to rank; ask for 2 or more")
        rng = np.random.default_rng([seed, PARTS.index(part)])
        skills = (np.arange(count) + rng.random(count)) / count  # stratified: one in each of `count` equal steps
        apparatus = np.concatenate([rng.permutation(APPARATUS) for _ in range(0, count, len(APPARATUS))])
        durations = rng.uniform(*DURATION_S, count)
        durations = durations[_balanced_order(skills, durations[:, None], rng)]
        performances = [compose(skill, duration_s, rng) for skill, duration_s in zip(skills, durations, strict=True)]
        settings = [_draw_setting(part, rng) for _ in range(count)]
        totals = np.array([judge(elements).total for elements in performances])
        settings = [settings[i] for i in _balanced_order(totals, np.array([_confounders(s) for s in settings]), rng)]
        seeds = rng.integers(2**31, size=count).tolist()
        for index in rng.permutation(count):
            kind = str(apparatus[index])
            number = 1 + sum(routine.apparatus == kind for routine in routines)
            name, elements = f"{kind}_{number:03d}", performances[index]
            routines.append(Routine(name, part, elements, settings[index], judge(elements), seeds[index]))
    return routines


def _draw_setting(part: str, rng: np.random.Generator) -> Setting:
    """Draw a filming from the kinds and ranges that only this part of the set uses."""

    def own(low: float, high: float) -> float:
        """Return a number from one of the part's own bins, away from the bin's edges."""
        place = 2 * rng.integers(NUM_BINS // 2) + PARTS.index(part) + rng.uniform(0.15, 0.85)
        return round(float(low + (high - low) * place / NUM_BINS), 4)

    def own_kind(kinds: Collection[str]) -> str:
        """Return a kind from the part's own half."""
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
    """Return the order (N,) of the rows of measures (N, M), of many random ones, that correlates least with the levels.

    The largest rank correlation of any measure with the levels (N,) decides.
    """
    middle = (len(levels) + 1) / 2
    orders = np.stack([rng.permutation(len(levels)) for _ in range(NUM_ORDERS)])  # (P, N)
    ranks = rankdata(measures, axis=0)[orders] - middle  # (P, N, M)
    covariances = np.einsum("n,pnm->pm", rankdata(levels) - middle, ranks)
    return orders[np.abs(covariances).max(axis=1).argmin()]


def _confounders(setting: Setting) -> tuple[float, ...]:
    """Return what mean brightness, change from frame to frame and file size mostly depend on."""
    frame_change = setting.camera_travel * (0.3 + setting.detail) * (0.4 + setting.brightness)
    return setting.brightness, setting.detail, setting.camera_travel, setting.grain, setting.zoom, frame_change


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
    """Write a set of routines. Videos of an earlier run of the same plan, complete or interrupted, are kept.

    Args:
        folder: gets `videos/`, `train.txt`, `test.txt` and `routines.jsonl`; routines of another plan are replaced.
        seed: the same seed gives the same bytes on one machine.
        num_train: number of training routines.
        num_test: number of test routines.
        workers: number of processes that draw; None for one per core, at most `MAX_WORKERS`.
        on_progress: called with the number of routines written so far, and of all routines.

    Returns:
        The training routines, then the test routines.
    """
    routines = plan_routines(seed=seed, num_train=num_train, num_test=num_test)
    videos = {routine.name: Path(folder) / "videos" / f"{routine.name}.mp4" for routine in routines}
    records = Path(folder) / "routines.jsonl"
    planned = {routine.name: routine.record() for routine in routines}
    # before the new records are written: a killed run must not leave an old video under a new record
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
    """Draw a routine and write it as H.264 in MP4, whole or not at all. The same routine gives the same bytes."""
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
        container.metadata["comment"] = COMMENT
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "23", "preset": "ultrafast"})
        stream.width, stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # x264's bytes depend on its number of threads
        for frame in draw_routine(motion, routine.apparatus, setting, seed=routine.seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    write_atomic(path, content.getvalue())


def label_file(routines: Iterable[Routine]) -> str:
    """Return the scores in RG's label format."""
    lines = [LABEL_HEADER]
    for routine in sorted(routines, key=lambda routine: routine.name):
        scores = routine.judgement
        numbers = (scores.difficulty, scores.execution, scores.total, scores.penalty, routine.duration_s)
        lines.append("\t".join([routine.name, *(f"{number:.2f}" for number in numbers)]))
    return "\n".join(lines) + "\n"


def _in_processes(
    work: Callable[[Routine, Path], None], jobs: list[tuple[Routine, Path]], workers: int | None
) -> Iterator[None]:
    """Yield once per finished job, in any order. The exception of a failed job is raised here."""
    workers = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), len(jobs))
    if workers < 2:
        for job in jobs:
            work(*job)
            yield
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C, which reaches every process: the parent handles it alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- confounders ---


def confounds(folder: Path) -> dict[str, float]:
    """Return how trivial measures of the test routines' videos correlate with their Total score.

    Args:
        folder: the folder of `render_routines`; only the files in it are read.

    Returns:
        SRCC with Total of `brightness` (mean grey level), `frame_difference` (mean absolute change of a grey level from
        frame to frame), `duration` and `file_size`.
    """
    rows = [line.split() for line in (Path(folder) / "test.txt").read_text().splitlines()[1:]]
    videos = [_measures(Path(folder) / "videos" / f"{row[0]}.mp4") for row in rows]
    totals = [float(row[3]) for row in rows]
    return {
        measure: float(spearmanr([values[measure] for values in videos], totals).statistic) for measure in videos[0]
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
