"""Does the evidence point at the fault? Generated routines with one failed element, and the clip that holds it.

    python -m benchmarks.planted_faults [FOLDER]

A routine has 10 elements in 16 or 17 clips. A failed element is bent, shaking, swaying and halting throughout. The head
learns Execution from routines with none to `MAX_FAILED` failed elements, at any time. The routines that it is asked
about have exactly one, in halls that training never saw. The clip that holds the fault is the one that the failed
element fills most. Routines and features that the folder holds already are used again.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy.stats import binomtest

from cofinal.data.files import write_atomic
from cofinal.data.gymnastics.choreography import ELEMENT_VALUES, Element, judge
from cofinal.data.routines import Routine, plan_routines, write_video
from cofinal.pipeline.console import ends_well, print_message, progress
from cofinal.pipeline.extraction import extract_features
from cofinal.pipeline.head_training import train_head
from cofinal.pipeline.scoring import score_video

from .tables import print_table

NUM_TRAIN, NUM_TEST = 66, 30
NUM_ROUNDS = 2
"""Of all five kinds of elements."""
DURATION_S = (20.6, 22.6)
MAX_FAILED = 6
CLEAN_LOAD, FAILED_LOAD = 0.05, 1.0
"""Level of all faults of an element, 0 to 1."""
NUM_SHOWN = 3
"""The clip with the fault shall be among so many most negative ones."""


class Finding(NamedTuple):
    """What the evidence says of one routine."""

    rank: int
    """Of the clip with the fault among the contributions, from 1, the most negative."""
    clips: int
    doubts: list[str]


def plan(*, seed: int, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST) -> list[Routine]:
    """Return the routines to learn from, then those with one planted fault, without drawing them."""
    rng = np.random.default_rng([seed, 10])
    planned = plan_routines(seed=seed, num_train=num_train, num_test=num_test)
    failed = [*rng.permutation(np.arange(num_train) % (MAX_FAILED + 1)).tolist(), *[1] * num_test]
    performances = [_perform(number, rng) for number in failed]
    return [
        replace(routine, elements=elements, judgement=judge(elements))
        for routine, elements in zip(planned, performances, strict=True)
    ]


def _perform(num_failed: int, rng: np.random.Generator) -> tuple[Element, ...]:
    """Return a performance whose only differences in execution are failed elements."""
    kinds = [str(kind) for _ in range(NUM_ROUNDS) for kind in rng.permutation(list(ELEMENT_VALUES))]
    loads = rng.permutation([FAILED_LOAD] * num_failed + [CLEAN_LOAD] * (len(kinds) - num_failed)).tolist()
    shares = rng.uniform(0.9, 1.1, len(kinds))
    durations = (rng.uniform(*DURATION_S) * shares / shares.sum()).tolist()
    return tuple(
        Element(
            kind=kind,
            duration_s=round(duration, 3),
            reach=round(float(rng.uniform(0.6, 0.9)), 3),
            slack=load,
            tremble=load,
            wobble=load,
            pause_s=round(0.28 * load, 3),
        )
        for kind, duration, load in zip(kinds, durations, loads, strict=True)
    )


def fault_clip(routine: Routine, times: Sequence[tuple[float, float]]) -> int:
    """Return the clip, of those with these starts and ends in seconds, that the one failed element fills most."""
    (place,) = (place for place, element in enumerate(routine.elements) if element.slack == FAILED_LOAD)
    ends = np.cumsum([element.duration_s for element in routine.elements])
    starts = np.array(times)
    return int((np.minimum(starts[:, 1], ends[place]) - np.maximum(starts[:, 0], np.append(0, ends)[place])).argmax())


def find_faults(folder: Path, *, seed: int = 0, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST) -> list[Finding]:
    """Draw routines, train a head on one part of them and ask it about the other part."""
    routines = plan(seed=seed, num_train=num_train, num_test=num_test)
    _draw(routines, folder)
    summary = extract_features(folder / "videos", folder / "features", backbone="i3d")
    if summary.failed:
        raise ValueError(f"{len(summary.failed)} routines failed, the first: {summary.failed[0]['error']}")
    head = folder / "head.safetensors"
    labels = folder / "labels.csv"
    train_head(folder / "features", "csv", labels=labels, protocol="official", ranges=["Execution=0:10"], out=head)
    findings = []
    for routine in routines[num_train:]:
        score = score_video(folder / "features" / f"{routine.name}.npy", head)
        contributions = np.array(score.evidence.targets["Execution"].contributions)
        at_fault = contributions[fault_clip(routine, score.clip_times)]
        rank = 1 + int((contributions < at_fault).sum())
        findings.append(Finding(rank, len(contributions), score.evidence.doubts))
    return findings


def _draw(routines: Sequence[Routine], folder: Path) -> None:
    """Write the routines' videos, records and labels; videos of the same records are kept."""
    records = folder / "routines.jsonl"
    content = "".join(f"{routine.record()}\n" for routine in routines)
    if records.exists() and records.read_text() != content:
        raise ValueError(f"{folder} holds other routines; name another folder")
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    write_atomic(records, content.encode())
    rows = [f"{routine.name},{routine.judgement.execution},{routine.part}\n" for routine in routines]
    write_atomic(folder / "labels.csv", ("video,Execution,split\n" + "".join(rows)).encode())
    with progress("routines") as bar:
        task = bar.add_task("rendering", total=len(routines))
        for routine in routines:
            video = folder / "videos" / f"{routine.name}.mp4"
            if not video.exists():
                write_video(routine, video)
            bar.advance(task)


def _main(
    folder: Annotated[Path, typer.Argument(help="Gets the routines, features and the head.")] = Path("planted-faults"),
    seed: Annotated[int, typer.Option(help="Of the routines.")] = 0,
) -> None:
    """Measure how often the clip with the planted fault is among the most negative ones, and print a table."""
    findings = find_faults(folder, seed=seed)
    found = [finding.rank <= NUM_SHOWN for finding in findings]
    chance = np.mean([NUM_SHOWN / finding.clips for finding in findings])
    low, high = binomtest(sum(found), len(found)).proportion_ci(method="wilson")
    unlike = sum(any("unlike" in doubt for doubt in finding.doubts) for finding in findings)
    print_message(f"ranks of the clips with the fault: {json.dumps(sorted(finding.rank for finding in findings))}")
    rows = [
        [f"clip with the fault among the {NUM_SHOWN} most negative", f"{np.mean(found):.0%} ({low:.0%} to {high:.0%})"],
        ["the same by chance", f"{chance:.0%}"],
        ["routines that are flagged as unlike the training routines", f"{unlike / len(findings):.0%}"],
    ]
    print_table([f"{len(findings)} routines", "share"], rows)


if __name__ == "__main__":
    typer.run(ends_well(_main))
