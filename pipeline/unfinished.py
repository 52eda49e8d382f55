"""The folder of a head that is not finished: `HEAD.partial` keeps its finished trainings until the head is written.

It also takes the head's name, so that no empty file does. A lock in it ends with the process that trains.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from ..data.files import TEMPORARY_PREFIX, WriteError, make_folder, remove_temporaries, write_atomic
from ..data.lock import Lock, LockedError
from .console import one_sentence
from .examples import Dataset
from .manifest import versions
from .splits import Split
from .trainings import SUFFIX, HeadTraining, make_jobs

HEADS = Path("heads")
"""Where heads without a name go."""
RECORD, LOCK = "run.json", "lock"


def fingerprint(splits: Mapping[int, Sequence[Split]], dataset: Dataset, training: HeadTraining) -> dict[str, str]:
    """Return a digest of each thing that decides the results of a run, by its name.

    Raises:
        ValueError: nothing can be learnt in one of the trainings.
    """
    jobs = make_jobs(splits)
    configs = [training.config_for(dataset.examples.at(job.training), dataset.labels) for job in jobs]
    settings = {
        "configs": [[type(config).__name__, asdict(config)] for config in configs],
        "recipe": [type(training.recipe).__name__, asdict(training.recipe)],
        "device": training.device,
        "jobs": [[job.file, job.training.tolist(), job.evaluated.tolist()] for job in jobs],
    }
    rows = [[row.video, row.action, row.scores] for row in dataset.examples.rows]
    features = (hashlib.sha256(x.tobytes()).hexdigest() for x in dataset.examples.features)
    return {
        "settings": _digest(settings),
        "labels": _digest([dataset.labels.targets, dataset.labels.actions, rows]),
        "features": _digest(list(features)),
        "versions of the libraries": _digest(versions("cofinal", "torch", "numpy", "scipy", "scikit-learn")),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def folder_of(head: Path) -> Path:
    """Return the folder that keeps a head's finished trainings."""
    return head.with_suffix(".partial")


def new_head(dataset: str) -> Path:
    """Return a default head file that does not exist, and take its name: another training may start now too."""
    stem = f"{dataset}-{date.today():%Y%m%d}"
    for number in itertools.count(1):
        head = HEADS / f"{stem}-{number}.safetensors" if number > 1 else HEADS / f"{stem}.safetensors"
        try:
            folder_of(head).mkdir(parents=True)
        except FileExistsError:
            continue
        if not head.exists():
            return head
        folder_of(head).rmdir()
    raise AssertionError("there is always a next number")


def interrupted_head(dataset: str) -> Path | None:
    """Return the default head file whose training was interrupted; None if there is none.

    Raises:
        ValueError: there are several.
    """
    folders = sorted(HEADS.glob(f"{dataset}-*.partial"))
    if len(folders) > 1:
        heads = " or ".join(str(folder.with_suffix(".safetensors")) for folder in folders)
        raise ValueError(f"several trainings were interrupted; say which one goes on with --out {heads}")
    return folders[0].with_suffix(".safetensors") if folders else None


@contextmanager
def kept_trainings(head: Path, decides: dict[str, str], *, total: int, resume: bool) -> Iterator[Path]:
    """Hold the folder for a head's finished trainings; it goes when the block ends well, or if it holds none.

    Args:
        head: the head file.
        decides: the `fingerprint` of the run.
        total: number of trainings of the run.
        resume: whether trainings of an interrupted run may be there.

    Raises:
        ValueError: another run trains this head, or finished trainings are there that cannot be used.
        KeyboardInterrupt: with a sentence on what is kept.
        WriteError: a file cannot be written, or a process was killed; the sentence says what is kept.
    """
    folder = folder_of(head)
    make_folder(folder)
    _check_own(folder)
    lock, is_done = Lock(folder / LOCK), False
    try:
        lock.acquire()
    except LockedError as holder:
        raise ValueError(f"{head} is being trained by another run ({holder}); give another --out") from holder
    try:
        remove_temporaries(folder)
        _check_kept(folder, decides, resume=resume)
        write_atomic(folder / RECORD, json.dumps(decides).encode())
        yield folder
        is_done = True
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_is_kept(folder, total)) from None
    except OSError as error:
        raise WriteError(f"{one_sentence(error)}; {_what_is_kept(folder, total)}") from error
    finally:
        lock.release()
        if is_done or not count_finished(folder):
            shutil.rmtree(folder)


def _what_is_kept(folder: Path, total: int) -> str:
    kept = count_finished(folder)
    how = f" in {folder}; the same command with --resume goes on" if kept else ""
    return f"{kept} of {total} trainings are kept{how}"


def count_finished(folder: Path) -> int:
    """Return how many finished trainings a folder keeps."""
    return len(list(folder.glob(f"*{SUFFIX}")))


def _check_own(folder: Path) -> None:
    """Refuse a folder of the user's own: the run removes its folder at the end."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)} - {LOCK}
    if names and RECORD not in names:
        raise ValueError(f"{folder} keeps the finished trainings of a run, but it holds other files; rename it")


def _check_kept(folder: Path, decides: dict[str, str], *, resume: bool) -> None:
    """Refuse finished trainings that are not wanted, or not of this run."""
    if not (kept := count_finished(folder)):
        return
    if not resume:
        raise ValueError(
            f"{folder} keeps {kept} finished trainings of an interrupted run; add --resume to go on with them, "
            "or remove the folder to start again"
        )
    before = json.loads((folder / RECORD).read_text())
    if different := [name for name, digest in decides.items() if digest != before.get(name)]:
        raise ValueError(
            f"{folder} keeps trainings with other {' and other '.join(different)}; go on with the same, or remove the "
            "folder to start again"
        )
