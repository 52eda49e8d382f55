"""Labels as people hold them, from the file to a head and its results."""

import csv
import json
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from cofinal import score_video, train_head
from cofinal.data.labels import read_labels
from cofinal.models.checkpoint import load_head

BRIEF = {"epochs": 1, "folds": 3}


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve made-up feature files, 001 to 012."""
    folder = tmp_path_factory.mktemp("store")
    for number in range(1, 13):
        features = np.random.default_rng(number).standard_normal((20, 64)).astype(np.float32)
        np.save(folder / f"{number:03}.npy", features)
    return folder


def results_of(command, store: Path, labels: Path, *arguments: object) -> tuple[dict, str]:
    """Train on a label file and return the results and what was said."""
    brief = ["--epochs", 1, "--folds", 3, "--json", "--out", "h.safetensors"]
    ended = command("train-head", store, "--dataset", "csv", "--labels", labels, *brief, *arguments)
    assert ended.code == 0, ended.err
    return json.loads(ended.out), ended.err


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("labels-excel/empty_columns.csv", "text separated by commas, UTF-8"),
        ("labels-excel/semicolons_decimal_commas.csv", "text separated by semicolons, UTF-8, decimal commas"),
        ("labels-excel/unicode_text.txt", "text separated by tabs, UTF-16"),
        ("labels-excel/windows_1252.csv", "1 label rows have no feature file: Müller"),
        ("labels-excel/zeros_eaten.csv", "12 labels match but for leading zeros, which Excel takes off: 1 is 001"),
        ("labels-group-header-case/labels.csv", "known by their names: Group"),
        ("labels-number-columns-become-targets/labels.csv", "numbers that are not taken for scores: Unnamed: 0, year"),
        ("labels-text-column-refused/labels.csv", "kept as information: athlete"),
        ("labels-windows-paths/labels.csv", "targets: score (--target narrows)"),
        ("labels-unicode-forms/labels.csv", "targets: score (--target narrows)"),
    ],
)
def test_tables_that_were_refused_or_misread(
    command, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = shared / "cases" / case
    store = labels.parent / "store" if (labels.parent / "store").is_dir() else shared / "cases/tiny-store"
    results, err = results_of(command, store, labels)
    assert results["targets"].keys() == {"score"}
    assert results["targets"]["score"]["n"] == 12
    assert results["training"]["grouped"] == ("group" in case)
    assert said in err
    assert results["labels"]["targets"] == ["score"]


def write_table(file: Path) -> Path:
    """A club's Excel table on its second sheet, as the store's twelve routines need it."""
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Cup")
    sheet.append(["Nr", "Athlete", "File", "D", "E1", "E2", "E3", "E4", "Penalty", "Total", "Club"])
    for number in range(1, 13):
        marks = [7 + (number * judge) % 5 / 10 for judge in (1, 2, 3, 4)]
        execution = round(sum(sorted(marks)[1:3]) / 2, 3)
        penalty = 0.1 * (number % 3)
        total = round(4 + number / 10 + execution - penalty, 3)
        sheet.append([number, f"A{number}", number, 4 + number / 10, *marks, penalty, total, "x"])
    book.save(file)
    return file


def test_a_club_table_with_judges_and_a_sum(command, tiny_store: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "cup.xlsx")
    rules = ["--panel", "Execution=E1,E2,E3,E4", "--sum", "Total=D+Execution-Penalty", "--range", "Execution=0:10"]
    results, err = results_of(command, tiny_store, table, "--sheet", "Cup", *rules)
    assert results["targets"].keys() == {"D", "Penalty", "Execution"}
    assert results["sums"]["formulas"] == {"Total": "Total = D + Execution - Penalty"}
    assert results["sums"]["targets"]["Total"]["n"] == 12
    assert results["sums"]["baselines"].keys() == results["baselines"].keys()
    assert results["panel"]["Execution"].keys() == {"rule", "srcc", "mae", "judges", "n"}
    assert results["labels"]["form"] == "Excel, sheet 'Cup' of 2"
    assert "Total = D + Execution - Penalty: checked on every row, learnt through its parts" in err
    rows = list(csv.DictReader(Path("h.predictions.csv").read_text().splitlines()))
    of_first = {row["target"]: row for row in rows if row["video"] == "1"}
    parts = [float(of_first[part]["predicted"]) for part in ("D", "Execution", "Penalty")]
    assert float(of_first["Total"]["predicted"]) == pytest.approx(parts[0] + parts[1] - parts[2], abs=2e-4)
    assert of_first["Total"]["grade"] == ""

    shown = command("train-head", tiny_store, "--dataset", "csv", "--labels", table, "--sheet", "Cup", *rules,
                    "--target", "Total", "--epochs", 1, "--folds", 3, "--out", "h.safetensors")  # fmt: skip
    assert shown.out.count("Total (sum)") == 2  # the head and the baselines
    assert "Execution: one judge of 4 against the others" in shown.out
    radii = load_head(Path("h.safetensors")).metadata["intervals"]["radii"]
    scored = command("score-video", tiny_store / "001.npy", "--head", "h.safetensors", "--json")
    said = json.loads(scored.out)
    parts = [said["targets"][part]["score"] for part in ("D", "Execution", "Penalty")]
    total = said["sums"]["Total"]
    assert total["formula"] == "Total = D + Execution - Penalty"
    assert total["score"] == pytest.approx(parts[0] + parts[1] - parts[2], abs=2e-4)
    low, high = total["interval"]["span"]
    assert (total["score"] - low, high - total["score"]) == pytest.approx([radii["Total"]] * 2, abs=2e-4)
    printed = command("score-video", tiny_store / "001.npy", "--head", "h.safetensors").out
    assert "Total = D + Execution - Penalty, from the scores above" in printed


def test_a_range_beyond_the_training_scores_is_the_heads(tiny_store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("video,Final\n" + "".join(f"{n:03},{10 + n}\n" for n in range(1, 13)))
    result = train_head(
        tiny_store, "csv", labels=labels, ranges=["Final=9:24"], out=tmp_path / "h.safetensors", **BRIEF
    )
    head = load_head(result.head)
    assert head.metadata["ranges"] == {"Final": [9, 24]}
    assert head.network.config.ranges == ((9, 24),)
    scored, radius = score_video(tiny_store / "001.npy", head=result.head), head.metadata["intervals"]["radii"]["Final"]
    final = scored.targets["Final"]
    assert final.interval.span == pytest.approx((max(9, final.score - radius), min(24, final.score + radius)), abs=2e-4)
    assert final.score - radius < 9 or final.score + radius > 24  # so the range cuts something off


def test_actions_events_and_rows_not_judged(tiny_store: Path, tmp_path: Path, capfd) -> None:
    lines = [f"{n:03},{5 + n % 4},{'Ball' if n % 2 else 'Hoop'},{'Cup' if n < 9 else ''}" for n in range(1, 12)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["clip,score,Action,Event", *lines, "012,DNS,Hoop,Cup"]) + "\n")
    result = train_head(tiny_store, "csv", labels=labels, out=tmp_path / "h.safetensors", **BRIEF)
    assert set(result.results["targets"]) == {"Ball/score", "Hoop/score"}
    assert "srcc_within_events" in result.results["targets"]["Ball/score"]
    assert "rows without a score" in capfd.readouterr().err


@pytest.mark.shared
def test_a_head_for_mtl_aqa_on_made_up_features(shared: Path, tmp_path: Path) -> None:
    """Labels as published, and features that hold the score: the head must find it on the published test part."""
    labels = shared / "data/labels/mtl-aqa"
    rows = read_labels("mtl-aqa", [labels]).rows[::6]
    rng = np.random.default_rng(0)
    store = tmp_path / "store"
    store.mkdir()
    for row in rows:
        clips = rng.standard_normal((9, 32)).astype(np.float32)
        clips[:, :4] += row.scores["Final"] / 20
        np.save(store / f"{row.video}.npy", clips)
    result = train_head(store, "mtl-aqa", labels=labels, epochs=5, out=tmp_path / "h.safetensors")
    assert result.results["protocol"] == "official"
    assert result.results["targets"]["Final"]["n"] == sum(row.split == "test" for row in rows)
    assert result.results["targets"]["Final"]["srcc"] > 0.8
    assert 0.8 < result.results["panel"]["Final"]["srcc"] < 1
    assert result.results["panel"]["Final"]["n"] == result.results["targets"]["Final"]["n"]
    assert "srcc_within_events" in result.results["targets"]["Final"]


@pytest.mark.shared
def test_jigsaws_is_evaluated_in_its_published_folds(shared: Path, tmp_path: Path) -> None:
    labels = shared / "data/labels/jigsaws"
    rows = read_labels("jigsaws", [labels]).rows
    store = tmp_path / "store"
    store.mkdir()
    for number, row in enumerate(rows):
        features = np.random.default_rng(number).standard_normal((8, 16)).astype(np.float32)
        np.save(store / f"{row.video}_capture1.npy", features)
    result = train_head(store, "jigsaws", labels=labels, epochs=1, out=tmp_path / "h.safetensors")
    assert set(result.results["targets"]) == {"Suturing/Score", "Knot_Tying/Score", "Needle_Passing/Score"}
    assert result.results["training"]["folds"] == 4
    other = train_head(store, "jigsaws", labels=labels, epochs=1, folds=3, out=tmp_path / "h.safetensors")
    assert other.results["training"]["folds"] == 3
