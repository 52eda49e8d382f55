"""Label files of the datasets that are published as pickles: MTL-AQA, UNLV-Dive and JIGSAWS.

`mtl-aqa`    `final_annotations_dict.pkl` {(video, dive): {"final_score", "difficulty", "start_frame", ...}}, or
             `augmented_final_annotations_dict.pkl`, which adds the marks of seven judges (MUSDL); beside it
             `train_split_0.pkl` and `test_split_0.pkl`, lists of keys.
`unlv-dive`  the same for 370 of these dives, with `train_split_370_4.pkl` and `test_split_370_4.pkl`.
`jigsaws`    `label.pkl` {trial: six ratings of 1 to 5} and `splits.pkl` {task: four folds of trials} (MUSDL).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .label_rows import LabelRow, LabelSet, Segment, Split
from .panels import panel_score
from .safe_pickle import read_pickle

MTL_AQA_FILES = ("augmented_final_annotations_dict.pkl", "final_annotations_dict.pkl")
DIVE_RANGE = (0.0, 105.0)
"""Rounded up to hold every published score (104.5)."""
DIVE_FACTS = ("difficulty", "position", "armstand", "rotation_type", "ss_no", "tw_no", "primary_view")
"""What is kept as information on a dive; ss_no and tw_no count somersaults and twists."""
JIGSAWS_RANGE = (6.0, 30.0)
"""Of the sum of six ratings of 1 to 5."""
LEFT_VIEW = "_capture1"
"""What the video files of the left camera add to a trial's name; the published code takes this view."""
SUM_TOLERANCE = 0.06
"""Points by which the published final scores may differ from what the marks give, by rounding."""


def read_mtl_aqa(files: Sequence[Path]) -> LabelSet:
    """Read the labels of MTL-AQA and the two lists of its split.

    Raises:
        ValueError: a file is missing or has another form.
    """
    return _read_dives("mtl-aqa", files[0], "split_0.pkl")


def read_unlv_dive(files: Sequence[Path]) -> LabelSet:
    """Read the labels of UNLV-Dive and the two lists of its split.

    Raises:
        ValueError: a file is missing or has another form.
    """
    return _read_dives("unlv-dive", files[0], "split_370_4.pkl")


def read_jigsaws(files: Sequence[Path]) -> LabelSet:
    """Read the labels of JIGSAWS and its folds.

    Raises:
        ValueError: a file is missing or has another form.
    """
    (file,) = files
    splits_file = file.with_name("splits.pkl")
    ratings, splits = read_pickle(file), read_pickle(splits_file)
    rows = []
    try:
        folds = {trial: fold for task in splits.values() for fold, trials in enumerate(task) for trial in trials}
        for trial, marks in ratings.items():
            task, surgeon_and_number = trial.rsplit("_", 1)
            if len(marks) != 6 or not all(1 <= mark <= 5 for mark in marks):
                raise ValueError(f"expected six ratings of 1 to 5 for {trial!r}, found {marks}")
            row = LabelRow(
                trial,
                {"Score": float(sum(marks))},
                f"{file} {trial}",
                action=task,
                fold=folds[trial],
                aliases=(trial + LEFT_VIEW,),
                info={"surgeon": surgeon_and_number[:1], "ratings": " ".join(map(str, marks))},
            )
            rows.append(row)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} and {splits_file} are not the published labels of JIGSAWS ({error!r})") from error
    tasks = tuple(dict.fromkeys(row.action for row in rows if row.action))
    note = f"jigsaws: {len(rows)} trials of {', '.join(tasks)} in {max(folds.values()) + 1} published folds"
    return LabelSet(
        "jigsaws", ("Score",), {"Score": JIGSAWS_RANGE}, tasks, tuple(rows), (file, splits_file), notes=(note,)
    )


def _read_dives(dataset: str, file: Path, split_name: str) -> LabelSet:
    parts: tuple[Split, ...] = ("train", "test")
    split_files = {part: file.with_name(f"{part}_{split_name}") for part in parts}
    content = read_pickle(file)
    split_of: dict[Any, Split] = {}
    for part, split_file in split_files.items():
        for key in read_pickle(split_file):
            split_of[key] = part
    try:
        known = {key: content[key] for key in sorted(split_of) if key in content}
        rows = [_dive(file, key, facts, split_of[key]) for key, facts in known.items()]
        if not rows:
            raise ValueError("no dive of the split is labelled")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        names = ", ".join(path.name for path in split_files.values())
        message = f"{file} and {names} beside it are not the published labels of {dataset} ({error!r})"
        raise ValueError(message) from error
    notes = [f"{dataset}: {len(rows)} dives, {sum(row.split == 'test' for row in rows)} of them for the test"]
    if len(split_of) > len(rows):
        notes.append(f"{len(split_of) - len(rows)} dives of the split have no label; they are left out")
    if len(content) > len(rows):
        notes.append(f"{len(content) - len(rows)} dives are in neither part of the split; they are left out")
    judged = [row for row in rows if row.marks]
    if judged:
        marks = np.array([row.marks["Final"] for row in judged])
        scores = np.array([row.scores["Final"] for row in judged])
        unequal = int((np.abs(panel_score(marks, "middle") - scores) > SUM_TOLERANCE).sum())
        notes.append(
            f"in {unequal} of {len(judged)} dives the published marks do not give the published final score; "
            "the final score is taken"
        )
    return LabelSet(
        dataset,
        ("Final",),
        {"Final": DIVE_RANGE},
        (),
        tuple(rows),
        (file, *split_files.values()),
        panels={"Final": "middle"} if judged else {},
        notes=tuple(notes),
    )


def _dive(file: Path, key: tuple[int, int], facts: dict[str, Any], split: Split) -> LabelRow:
    """One dive; its final score is difficulty times the sum of the middle three of seven marks."""
    video, dive = key
    marks = [3 * facts["difficulty"] * float(mark) for mark in facts.get("judge_scores", ())]
    return LabelRow(
        f"{video:02}_{dive:02}",  # as the frames that MUSDL publishes are named
        {"Final": float(facts["final_score"])},
        f"{file} ({video}, {dive})",
        split=split,
        event=f"{video:02}",
        aliases=(f"{video}_{dive}",),
        segment=Segment(f"{video:02}", float(facts["start_frame"]), float(facts["end_frame"]), "frames"),
        marks={"Final": tuple(marks)} if marks else {},
        info={name: str(facts[name]) for name in DIVE_FACTS},
    )
