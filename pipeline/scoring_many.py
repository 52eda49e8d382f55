"""score-video: routines in; their scores, a ranking, reports, and the accuracy where judges' scores are there too."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.files import WriteError, write_atomic
from .console import one_sentence, print_message
from .options import ExtractorOptions, HeadOptions, LabelOptions, takes_fields_of
from .ranking import Place, ranked, ranking_csv, ranking_target
from .report import render_index, render_report
from .score_evaluation import Judged, evaluate_scores, places_of_labels, read_judged
from .score_log import ScoreLog
from .scoring import Scorer
from .sources import find_routines, is_one_routine
from .stages import OnStage, show_stages
from .verdict import Score

LOG_NAME = "scores.jsonl"


@dataclass
class ScoringResult:
    """What one run of score-video gives."""

    scores: dict[str, Score] = field(default_factory=dict)
    """By the routine's name, as in a feature store."""
    failed: list[dict[str, str]] = field(default_factory=list)
    """`{"video", "error"}` of each video that could not be scored."""
    kept: int = 0
    """Scores of an earlier run that were still right."""
    rank_by: str = ""
    """The target of the ranking."""
    ranking: list[Place] = field(default_factory=list)
    """The routines by action, and within an action by their score, highest first."""
    evaluation: dict[str, Any] | None = None
    """With judges' scores: `targets` and `average` as train-head's results have them, `evaluated`, `unscored`,
    `warnings`."""
    files: dict[str, Path] = field(default_factory=dict)
    """What was written: the `table`, and the `report` or the index of the `reports`."""


@takes_fields_of(LabelOptions)
@takes_fields_of(HeadOptions)
@takes_fields_of(ExtractorOptions)
def score_videos(
    videos: str | Path | Sequence[str | Path],
    head: str | Path | None = None,
    *,
    action: str | None = None,
    csv: str | Path | None = None,
    report: str | Path | None = None,
    rank_by: str | None = None,
    dataset: str | None = None,
    labels: str | Path | None = None,
    label_options: LabelOptions,
    head_options: HeadOptions,
    options: ExtractorOptions,
    on_score: Callable[[Score], None] | None = None,
) -> ScoringResult:
    """Score routines one after another with one loaded head and backbone, and rank them.

    With `csv` or a folder for `report`, the scores are kept there as they come, so that the same call continues after
    an interruption and scores again only what has changed.

    Args:
        videos: videos, folders of numbered frames, `.npy` files, folders of videos, feature stores, or `.txt` lists of
            paths; one or several.
        head: as of `score_video`.
        action: the apparatus or event of all routines, where the head has several; None to take it from the labels or
            from each file's name.
        csv: write the ranking to this file.
        report: write a page for each routine and an index into this folder; for one video also a file `*.html`.
        rank_by: the target to rank by; None for the total, or else the first target.
        dataset: the format of judges' scores to compare with, as of `train_head`.
        labels: the label file or its folder; None to look beside the features or videos.
        label_options: the fields of `LabelOptions`, given as keyword arguments.
        head_options: the fields of `HeadOptions`, given as keyword arguments.
        options: the fields of `ExtractorOptions`, given as keyword arguments.
        on_score: called with each score as it comes.

    Raises:
        VideoError: the only video cannot be scored. Of several, `failed` says which.
        ValueError: bad arguments, no head, no video, or labels that do not fit; nothing was done.
        OSError: an output cannot be written; nothing was done.
        WriteError: an output could not be written during the work; the scores so far are kept.
    """
    named = [Path(x) for x in ([videos] if isinstance(videos, str | Path) else videos)]
    routines = find_routines(named, options.fps)
    alone = is_one_routine(named)
    outputs = _Outputs.at(csv, report, alone)
    _check_label_options(dataset, labels, label_options, alone)
    scorer = Scorer(head, action=action, head_options=head_options, options=options)
    rank_by = ranking_target(scorer.score_names, rank_by)
    judged = None
    if dataset is not None:
        places = places_of_labels(None if labels is None else Path(labels), named)
        judged = read_judged(scorer.head, scorer.head_path, routines, dataset, places, label_options)
        outputs.spare(judged.labels.files)
        for note in judged.notes:
            print_message(f"note: {note}")
    settings = {
        "program": __version__,
        "head": scorer.head_facts["sha256"],
        "arguments": [action, *asdict(head_options).values()],
        "options": asdict(options),
    }
    log, result = ScoreLog(outputs.log, settings), ScoringResult(rank_by=rank_by)
    run = _Run(scorer, outputs, log, judged, alone, result, on_score)
    with scorer, show_stages(len(routines)) as begin:
        if not alone and any(path.suffix != ".npy" for path in routines.values()):
            scorer.load_backbone()  # what is wrong with it is wrong for all videos
        run.score_all(routines, begin)
    run.finish()
    return result


def _check_label_options(dataset: str | None, labels: str | Path | None, options: LabelOptions, alone: bool) -> None:
    if labels is not None and dataset is None:
        raise ValueError("--labels needs --dataset, the format of the label file: csv for a table")
    if alone and dataset is not None:
        raise ValueError("--dataset compares several scores with the judges', and one video was named; name more")
    if dataset is None and options != LabelOptions():
        raise ValueError("--dataset is missing: the options of labels are for comparing with judges' scores")


@dataclass(frozen=True)
class _Outputs:
    """Where the results go."""

    csv: Path | None
    folder: Path | None
    """Of the reports."""
    page: Path | None
    """The one report, where a file is named."""

    @classmethod
    def at(cls, csv: str | Path | None, report: str | Path | None, alone: bool) -> "_Outputs":
        table, place = (None if x is None else Path(x) for x in (csv, report))
        if table is not None and table.is_dir():
            raise ValueError(f"--csv {table} is a folder; name the table's file")
        if place is None or place.suffix.lower() not in (".html", ".htm"):
            if place is not None and place.is_file():
                raise ValueError(f"--report {place} is a file; name a folder, or for one video a page *.html")
            return cls(table, place, None)
        if place.is_dir():
            raise ValueError(f"--report {place} is a folder with a page's name; name the page's file")
        if not alone:
            raise ValueError(f"--report {place} is one page, and there are several videos; name a folder")
        return cls(table, None, place)

    def spare(self, files: Sequence[Path]) -> None:
        """Refuse to overwrite label files."""
        if self.csv is not None and self.csv.resolve() in [file.resolve() for file in files]:
            raise ValueError(f"--csv {self.csv} is the judges' table, which it would overwrite; name another file")

    @property
    def log(self) -> Path | None:
        """Where scores are kept: with the reports, or else beside the table. The one score of a page is not kept."""
        if self.folder is not None:
            return self.folder / LOG_NAME
        return None if self.csv is None or self.page is not None else self.csv.with_name(f"{self.csv.name}.jsonl")

    def page_of(self, name: str) -> Path | None:
        return self.page if self.folder is None else self.folder / f"{name}.html"


@dataclass
class _Run:
    """One run over all routines."""

    scorer: Scorer
    outputs: _Outputs
    log: ScoreLog
    judged: Judged | None
    alone: bool
    """Whether one video was named, whose failure is the command's."""
    result: ScoringResult
    on_score: Callable[[Score], None] | None

    def score_all(self, routines: dict[str, Path], begin: Callable[[int, Path], OnStage]) -> None:
        try:
            for index, (name, path) in enumerate(routines.items()):
                self._score(name, path, begin(index, path))
        except KeyboardInterrupt:
            self.finish()
            how = "; run the same command again to go on" if self.outputs.log else ""
            raise KeyboardInterrupt(f"{len(self.result.scores)} of {len(routines)} videos are scored{how}") from None

    def _score(self, name: str, path: Path, on_stage: OnStage) -> None:
        page = self.outputs.page_of(name)
        row = self.judged.rows.get(name) if self.judged else None
        action = row.action if row else None
        score = self.log.find(name, path, action)
        if score is not None and (page is None or page.exists()):
            self.result.kept += 1
            self._take(name, score)
            return
        try:
            scored = self.scorer.score(path, action=action, thumbnails=page is not None, on_stage=on_stage)
        except Exception as error:  # whatever goes wrong with one of several videos, the others are still scored
            if self.alone:
                raise
            message = one_sentence(error)
            self.result.failed.append({"video": str(path), "error": message})
            print_message(f"failed: {message}")
            return
        self._take(name, scored.score)
        if page is not None:
            on_stage("reporting", 0, None)
            self._write("report", page, render_report(scored, self.scorer.head).encode("utf-8", "backslashreplace"))
        if self.outputs.log is not None:
            with _explained_failure(self.outputs.log):
                self.log.add(name, path, action, scored.score)

    def _take(self, name: str, score: Score) -> None:
        self.result.scores[name] = score
        if self.on_score is not None:
            self.on_score(score)

    def finish(self) -> None:
        """Rank and evaluate the scores so far, and write the table and the index."""
        result = self.result
        result.ranking = ranked(result.scores, result.rank_by)
        if self.judged is not None and self.judged.rows.keys() & result.scores.keys():
            result.evaluation = evaluate_scores(self.judged, result.scores)
        if self.outputs.csv is not None:
            self._write("table", self.outputs.csv, ranking_csv(result.ranking, result.failed))
        if self.outputs.folder is not None:
            page = render_index(result.ranking, result.rank_by, result.failed, result.evaluation)
            result.files.pop("report", None)
            self._write("reports", self.outputs.folder / "index.html", page.encode("utf-8", "backslashreplace"))

    def _write(self, kind: str, path: Path, content: bytes) -> None:
        with _explained_failure(path):
            write_atomic(path, content)
        self.result.files[kind] = path


@contextmanager
def _explained_failure(path: Path) -> Iterator[None]:
    """Turn the failure to write an output into one that says how to go on."""
    try:
        yield
    except OSError as error:
        why = error.strerror or one_sentence(error)
        raise WriteError(f"{path} cannot be written ({why}); correct that and run the same command again") from error
