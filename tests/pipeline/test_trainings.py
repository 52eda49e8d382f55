"""Trainings give the same results one by one, in several processes, and after an interruption."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_routines import dataset_of

from cofinal.data.files import WriteError
from cofinal.models.checkpoint import load_head
from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.pipeline import training_pool
from cofinal.pipeline.protocol import Outcome, run_seeds
from cofinal.pipeline.splits import make_splits
from cofinal.pipeline.trainings import HeadTraining, make_jobs
from cofinal.pipeline.unfinished import fingerprint, interrupted_head, kept_trainings, new_head

TRAINING = HeadTraining(partial(CoFInAlConfig, width=16, num_members=2), CoFInAlRecipe(epochs=2))
DATA = dataset_of(np.linspace(2, 18, 30))
SPLITS = {seed: make_splits(DATA.examples, "cv", folds=3, seed=seed, intervals=True)[1] for seed in (0, 1)}
JOBS = make_jobs(SPLITS)


def assert_same(one: Outcome, other: Outcome) -> None:
    assert (one.predictions, one.curves, one.radii) == (other.predictions, other.curves, other.radii)
    assert all(torch.equal(x, y) for x, y in zip(*(x.network.state_dict().values() for x in (one, other)), strict=True))


def test_results_do_not_depend_on_processes_threads_or_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = run_seeds(SPLITS, DATA, TRAINING, folder=tmp_path, workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    done: list[int] = []
    for job in JOBS[::2]:
        (tmp_path / job.file).unlink()
    monkeypatch.setattr(training_pool, "ALONE_S", 0)  # as if the trainings took long
    assert_same(alone, run_seeds(SPLITS, DATA, TRAINING, folder=tmp_path, on_epochs=done.append))
    kept = 2 * (len(JOBS) - len(JOBS[::2]))
    assert done[:2] == [kept, kept + 1]  # one epoch here, then the pool
    assert done[-1] == 2 * len(JOBS)
    assert sorted(done[2:]) == done[2:]


def test_trainings_that_are_kept_are_not_run_again(tmp_path: Path) -> None:
    run_seeds(SPLITS, DATA, TRAINING, folder=tmp_path, workers=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == len(JOBS)
    (tmp_path / JOBS[3].file).unlink()
    run_seeds(SPLITS, DATA, TRAINING, folder=tmp_path, workers=1)
    changed = [path.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert changed == [JOBS[3].file]


def test_a_training_that_fails_in_a_process_says_why(tmp_path: Path) -> None:
    broken = dataset_of(np.linspace(2, 18, 30))
    broken.examples.features[7][0, 0] = np.nan
    with pytest.raises(ValueError, match="hold NaN, infinity or absurd values: extract them again"):
        run_seeds({0: SPLITS[0]}, broken, TRAINING, folder=tmp_path, workers=2)


def test_a_fold_without_two_scores_is_refused_before_any_training() -> None:
    only_one = DATA.examples.scores.copy()
    only_one[np.setdiff1d(np.arange(30), SPLITS[0][0].evaluated)[1:]] = np.nan
    with pytest.raises(ValueError, match="fewer than two different values"):
        fingerprint({0: SPLITS[0]}, replace(DATA, examples=replace(DATA.examples, scores=only_one)), TRAINING)


# --- the folder ---

RUN = fingerprint(SPLITS, DATA, TRAINING)


def interrupt(head: Path, *, finished: int) -> str:
    """Interrupt a run after some trainings; return what it says."""

    def run() -> None:
        with kept_trainings(head, RUN, total=4, resume=True) as folder:
            for number in range(finished):
                (folder / f"0 {number}.npz").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        run()
    return str(stop.value)


def test_finished_trainings_stay_until_the_head_is_written(tmp_path: Path) -> None:
    head, folder = tmp_path / "h.safetensors", tmp_path / "h.partial"
    assert interrupt(head, finished=0) == "0 of 4 trainings are kept"
    assert not folder.exists()
    assert interrupt(head, finished=3).startswith(f"3 of 4 trainings are kept in {folder}; the same command with")
    with pytest.raises(ValueError, match="3 finished trainings of an interrupted run; add --resume"):
        kept_trainings(head, RUN, total=4, resume=False).__enter__()
    with kept_trainings(head, RUN, total=4, resume=True) as found:
        assert len(list(found.glob("*.npz"))) == 3
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_costs_no_finished_training(tmp_path: Path) -> None:
    head, folder = tmp_path / "h.safetensors", tmp_path / "h.partial"

    def run() -> None:
        with kept_trainings(head, RUN, total=4, resume=True):
            (folder / "0 1.npz").touch()
            raise OSError(28, "No space left on device", "h.html")

    with pytest.raises(WriteError, match=r"^h\.html: No space left on device; 1 of 4 trainings are kept in .*--resume"):
        run()
    assert (folder / "0 1.npz").exists()


def test_trainings_of_other_settings_labels_or_features_are_refused(tmp_path: Path) -> None:
    head = tmp_path / "h.safetensors"
    interrupt(head, finished=1)
    others = {
        "settings": (SPLITS, DATA, HeadTraining(CoFInAlConfig, TRAINING.recipe)),
        "labels": (SPLITS, dataset_of(np.linspace(2, 17, 30)), TRAINING),
        "features": (SPLITS, dataset_of(np.linspace(2, 18, 30)), TRAINING),
    }
    others["features"][1].examples.features[0][0, 0] += 1
    for what, run in others.items():
        with pytest.raises(ValueError, match=f"keeps trainings with other {what}; go on with the same"):
            kept_trainings(head, fingerprint(*run), total=4, resume=True).__enter__()
    assert fingerprint(SPLITS, dataset_of(np.linspace(2, 18, 30)), TRAINING) == RUN


def test_a_head_that_another_run_trains_is_refused(tmp_path: Path) -> None:
    head = tmp_path / "h.safetensors"
    with kept_trainings(head, RUN, total=4, resume=False):
        with pytest.raises(ValueError, match=f"is being trained by another run .process {os.getpid()} on"):
            kept_trainings(head, RUN, total=4, resume=True).__enter__()
        assert (tmp_path / "h.partial").exists()


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "head.partial/notes.txt"
    notes.parent.mkdir()
    notes.touch()
    with pytest.raises(ValueError, match="holds other files"):
        kept_trainings(tmp_path / "head.safetensors", RUN, total=4, resume=False).__enter__()
    assert list(notes.parent.iterdir()) == [notes]


def test_new_heads_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = new_head("csv"), new_head("csv")
    assert first != second
    assert not list(tmp_path.rglob("*.safetensors"))
    with pytest.raises(ValueError, match="several trainings were interrupted; say which one"):
        interrupted_head("csv")
    shutil.rmtree(second.with_suffix(".partial"))
    assert interrupted_head("csv") == first
    assert interrupted_head("rg") is None
    first.touch()
    shutil.rmtree(first.with_suffix(".partial"))
    assert new_head("csv") == second


# --- the command ---


@pytest.fixture
def routines(tmp_path: Path) -> Path:
    """A store of 40 made-up routines with labels."""
    store = tmp_path / "store"
    store.mkdir()
    for i, x in enumerate(dataset_of(np.linspace(2, 18, 40)).examples.features):
        np.save(store / f"v{i}.npy", np.pad(x, ((0, 0), (0, 120))))
    rows = [f"v{i},{score:.2f}" for i, score in enumerate(np.linspace(2, 18, 40))]
    (store / "labels.csv").write_text("\n".join(["video,score", *rows]) + "\n")
    return store


def wait_for_the_end_of_group(group: int) -> None:
    """Wait until no process of a group is left."""
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("by", "workers"), [(signal.SIGINT, 1), pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow)]
)
def test_an_interrupted_command_goes_on_to_the_same_head(routines: Path, tmp_path: Path, by: int, workers: int) -> None:
    script = [sys.executable, "-c", "from cofinal.pipeline.cli import train_head_command as c; c()"]
    run = [*script, str(routines), "--dataset", "csv", "--epochs", "30", "--workers", str(workers)]
    head, other = tmp_path / "h.safetensors", tmp_path / "other.safetensors"
    first = subprocess.Popen([*run, "--out", str(head)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (kept := list(tmp_path.glob("h.partial/*.npz"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    if by == signal.SIGINT:
        os.killpg(first.pid, by)  # as a terminal does
    else:
        first.kill()
    _, said = first.communicate(timeout=60)
    assert "Traceback" not in said
    wait_for_the_end_of_group(first.pid)  # no worker goes on
    assert kept
    assert not head.exists()
    if by == signal.SIGINT:
        assert first.returncode == 130
        assert " of 6 trainings are kept in " in said.splitlines()[-1]
    again = subprocess.run([*run, "--out", str(head), "--resume"], capture_output=True, text=True, check=True)
    assert " of 6 trainings are kept from the interrupted run" in again.stderr
    subprocess.run([*run, "--out", str(other)], capture_output=True, check=True)
    assert not list(tmp_path.glob("*.partial"))
    for suffix in (".predictions.csv", ".curves.csv", ".predicted.png", ".curves.png"):
        assert head.with_suffix(suffix).read_bytes() == other.with_suffix(suffix).read_bytes()
    one, two = (json.loads(path.with_suffix(".results.json").read_text()) for path in (head, other))
    assert {**one, "training": None} == {**two, "training": None}
    states = [load_head(path).network.state_dict() for path in (head, other)]
    assert all(torch.equal(x, y) for x, y in zip(*(state.values() for state in states), strict=True))
