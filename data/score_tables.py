"""A club's table of scores: which column is the video, which are scores, and what the others mean.

Columns with a meaning are known by their names, in any case and order. Of the others, those that hold numbers are
scores, and texts are kept as information. What was taken for what is said before anything long starts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .label_rows import LabelRow, LabelSet, Segment, Split
from .numbers import NOT_JUDGED, has_decimal_commas, is_missing, is_nearly_number, read_number
from .panels import RULES, panel_score
from .tables import Faults, Table, read_table
from .target_rules import Formula, find_name, parse_panel, parse_sum

VIDEO_NAMES = ("video", "file", "filename", "clip", "name")
"""Names of the video's column; the first one that a table has is taken."""
MEANINGS = ("action", "group", "event", "split", "start", "end", "start_frame", "end_frame")
"""Columns with a meaning; start and end are in seconds, start_frame and end_frame in frames."""
NOT_SCORES = (
    *("index", "id", "no", "nr", "number", "bib"),
    *("year", "season", "age", "rank", "ranking", "place"),
    *("duration", "length", "videolength", "fps", "frames"),
)
"""Numbers under these names are no scores, unless --target asks for them; nor are those under Unnamed: 0 and the like,
which pandas writes for a column without a name."""
SUM_TOLERANCE = 0.01
"""Points by which a sum may differ from its parts, which are often rounded."""


@dataclass(frozen=True)
class TableOptions:
    """What the user says of a table; the default is to find everything in it."""

    video_column: str | None = None
    sheet: str | None = None
    """Of an Excel file."""
    targets: Sequence[str] | None = None
    """The scores to read; None for all columns of numbers that are not known by another name."""
    panels: Sequence[str] = ()
    """`TARGET=JUDGE,JUDGE,...` each."""
    panel_score: str = "trimmed"
    """How marks become a score, one of `panels.RULES`."""
    sums: Sequence[str] = ()
    """`TARGET=PART+PART-PART` each."""


def read_score_table(file: Path, options: TableOptions) -> LabelSet:
    """Read a table of scores.

    Args:
        file: a text or an Excel file.
        options: what the user says of it.

    Raises:
        ValueError: the file cannot be read, or has faults: all of them together, with line and column.
    """
    reader = _Reader(read_table(file, options.sheet), options)
    return reader.read()


class _Reader:
    """One table on its way to labels."""

    def __init__(self, table: Table, options: TableOptions) -> None:
        self.table, self.options = table, options
        self.names = list(table.fields.columns)
        self.faults = Faults(table.file, table.word)
        self.video = self._video_column()
        self.meanings = self._columns_with_a_meaning()
        others = [name for name in self.names if name not in (self.video, *self.meanings.values())]
        self.commas = [name for name in others if self._has_decimal_commas(name)]
        self.numeric = [name for name in others if self._is_numeric(name)]
        self.panels = dict(self._panel(text) for text in options.panels)
        judges = [judge for columns in self.panels.values() for judge in columns]
        self.others = [name for name in others if name not in judges]
        self.sums = self._sums()
        self.targets = self._targets()
        self.faults.refuse()

    # --- which column is what ---

    def _video_column(self) -> str:
        wanted = self.options.video_column
        if wanted is not None:
            name = find_name(wanted, self.names)
            if name is None:
                raise ValueError(f"{self.table.file} has no column {wanted!r}; it has {', '.join(self.names)}")
            return name
        plain = {name: re.sub(r"[\s_-]", "", name.casefold()) for name in self.names}
        for known in VIDEO_NAMES:
            found = [name for name in self.names if plain[name] == known]
            if len(found) > 1:
                raise ValueError(
                    f"{self.table.where(self.table.header_line)}: {' and '.join(map(repr, found))} may both be the "
                    "video; say which with --video-column"
                )
            if found:
                return found[0]
        raise ValueError(
            f"{self.table.where(self.table.header_line)}: expected a column {', '.join(VIDEO_NAMES[:-1])} or "
            f"{VIDEO_NAMES[-1]} with the videos' names, found {', '.join(self.names)}; say which it is with "
            "--video-column"
        )

    def _columns_with_a_meaning(self) -> dict[str, str]:
        """The columns with a meaning, by it."""
        found: dict[str, str] = {}
        for name in self.names:
            meaning = name.casefold()
            if meaning not in MEANINGS or name == self.video:
                continue
            if meaning in found:
                fault = f"the columns {found[meaning]!r} and {name!r} have one meaning; rename or remove one"
                self.faults.add(self.table.header_line, fault)
            found[meaning] = name
        for ends in (("start", "end"), ("start_frame", "end_frame")):
            one = [meaning for meaning in ends if meaning in found]
            if len(one) == 1:
                fault = f"a column {one[0]!r} needs the other one of {ends[0]} and {ends[1]}"
                self.faults.add(self.table.header_line, fault)
                found.pop(one[0])
        return found

    def _panel(self, text: str) -> tuple[str, tuple[str, ...]]:
        target, judges = parse_panel(text)
        if self.options.panel_score not in RULES:
            raise ValueError(f"unknown --panel-score {self.options.panel_score!r}; known are {', '.join(RULES)}")
        if len(judges) < RULES[self.options.panel_score]:
            raise ValueError(
                f"--panel {text!r} has {len(judges)} judges, and --panel-score {self.options.panel_score} needs "
                f"{RULES[self.options.panel_score]}; take --panel-score mean"
            )
        columns = []
        for judge in judges:
            column = find_name(judge, self.names)
            if column is None:
                raise ValueError(
                    f"--panel {text!r}: {self.table.file} has no column {judge!r}; it has {', '.join(self.names)}"
                )
            columns.append(column)
        return find_name(target, self.names) or target, tuple(columns)

    def _sums(self) -> tuple[Formula, ...]:
        known = list(dict.fromkeys([*self.numeric, *self.panels]))
        sums = [parse_sum(text, known) for text in self.options.sums]
        return tuple(Formula(find_name(one.target, self.names) or one.target, one.terms) for one in sums)

    def _targets(self) -> tuple[str, ...]:
        """The scores to learn: a sum is learnt through its parts."""
        parts = [part for one in self.sums for part in one.parts]
        made = [*self.panels, *(one.target for one in self.sums)]
        if self.options.targets:
            wanted: list[str] = []
            for target in self.options.targets:
                name = find_name(target, [*self.others, *made])
                if name is None:
                    known = [*(name for name in self.others if name in self.numeric and name not in made), *made]
                    raise ValueError(f"unknown target {target!r}; {self.table.file} has {', '.join(known) or 'none'}")
                of_sum = [one.parts for one in self.sums if one.target == name]
                wanted += of_sum[0] if of_sum else [name]
            return tuple(dict.fromkeys(wanted))
        found = [name for name in self.others if name in self.numeric and not self._is_known_otherwise(name)]
        summed = [one.target for one in self.sums]
        targets = tuple(dict.fromkeys(name for name in [*found, *self.panels, *parts] if name not in summed))
        if not targets:
            self._refuse_table_without_scores()
        return targets

    def _refuse_table_without_scores(self) -> None:
        known_otherwise = [name for name in self.others if name in self.numeric]
        if known_otherwise:
            raise ValueError(
                f"{self.table.file} has numbers in {', '.join(known_otherwise)} only, which are not taken for scores "
                "by their names; name the scores with --target"
            )
        for name in self.others:
            for line, text in self.table.fields[name].items():
                if not is_missing(text) and text[:1].isdigit():
                    self.faults.add(line, f"expected a number, found {text!r}", name)
        self.faults.refuse()
        raise ValueError(
            f"{self.table.where(self.table.header_line)}: expected a header such as video,score[,split][,group] and "
            f"numbers below a score's name, found {', '.join(self.names)}"
        )

    def _is_known_otherwise(self, name: str) -> bool:
        return bool(re.fullmatch(r"unnamed: ?\d+", name.casefold())) or re.sub(r"[\W_]", "", name.casefold()) in (
            *NOT_SCORES,
            "",
        )

    # --- what stands in the columns ---

    def _judged(self, name: str) -> list[str]:
        return [text for text in self.table.fields[name] if not is_missing(text)]

    def _has_decimal_commas(self, name: str) -> bool:
        return has_decimal_commas(self._judged(name), separated_by_commas=self.table.separated_by_commas)

    def _number(self, name: str, text: str) -> float | None:
        return read_number(text, decimal_comma=name in self.commas)

    def _is_numeric(self, name: str) -> bool:
        """Whether at least half of a column's values are numbers; the others are then faults."""
        texts = self._judged(name)
        numbers = sum(self._number(name, text) is not None for text in texts)
        return numbers > 0 and 2 * numbers >= len(texts)

    def _column(self, name: str) -> dict[int, float]:
        """The numbers of a column by line; NaN where there is none. What is no number is a fault."""
        numbers = {}
        for line, text in self.table.fields[name].items():
            number = None if is_missing(text) else self._number(name, text)
            if number is None and not is_missing(text):
                narrow = "" if self.options.targets else " (--target NAME leaves other columns alone)"
                self.faults.add(line, f"expected a number, found {text!r}{narrow}", name)
            numbers[line] = np.nan if number is None else number
        return numbers

    # --- labels ---

    def read(self) -> LabelSet:
        """Return the labels, or refuse the table with all its faults."""
        lines = list(self.table.fields.index)
        wanted = {*self.targets, *(part for one in self.sums for part in one.parts)}
        wanted |= {one.target for one in self.sums if one.target in self.names}
        scores = {name: self._column(name) for name in self.names if name in wanted}
        panels = {target: judges for target, judges in self.panels.items() if target in wanted}
        marks = {target: [self._column(judge) for judge in judges] for target, judges in panels.items()}
        notes = self._score_panels(scores, marks)
        self._check_sums(scores)
        rows, not_judged = self._rows(lines, scores, marks)
        self._refuse_repeats(rows)
        self.faults.refuse()
        if not rows:
            raise ValueError(f"{self.table.file} has no row with a score")
        actions = tuple(dict.fromkeys(row.action for row in rows.values() if row.action))
        reading = self._reading(len(rows), not_judged)
        return LabelSet(
            "csv",
            self.targets,
            {},
            actions,
            tuple(rows.values()),
            (self.table.file,),
            sums=self.sums,
            panels={target: self.options.panel_score for target in panels if target in self.targets},
            notes=(*self._sentences(len(rows), not_judged), *notes),
            reading=reading,
        )

    def _score_panels(self, scores: dict[str, dict[int, float]], marks: dict[str, list[dict[int, float]]]) -> list[str]:
        """Add the panels' scores; a column of the panel's name stays the score, and is compared with its marks."""
        notes = []
        rule = self.options.panel_score
        for target, judges in marks.items():
            lines = list(self.table.fields.index)
            made = panel_score(np.array([[judge[line] for judge in judges] for line in lines]), rule)
            kind = {"mean": "mean", "trimmed": "trimmed mean", "middle": "mean of the middle marks"}[rule]
            if target in scores:
                differences = np.abs(made - np.array([scores[target][line] for line in lines]))
                largest = float(np.nanmax(differences, initial=0.0)) if not np.isnan(differences).all() else np.nan
                notes.append(
                    f"{target}: the column's own scores; the {kind} of its judges differs by {largest:.2f} at most"
                )
            else:
                scores[target] = dict(zip(lines, made.tolist(), strict=True))
                notes.append(f"{target}: the {kind} of {', '.join(self.panels[target])}")
        return notes

    def _check_sums(self, scores: dict[str, dict[int, float]]) -> None:
        for one in self.sums:
            for line, found in scores.get(one.target, {}).items():
                expected = one.value({part: scores[part][line] for part in one.parts})
                if abs(found - expected) > SUM_TOLERANCE + 1e-9:  # false where one of them is NaN
                    self.faults.add(line, f"{found:g} is not {expected:g}, which {one} gives", one.target)

    def _rows(
        self,
        lines: list[int],
        scores: dict[str, dict[int, float]],
        marks: dict[str, list[dict[int, float]]],
    ) -> tuple[dict[int, LabelRow], int]:
        """The rows with a score by line, and the number of the others."""
        rows = {}
        not_judged = 0
        has_events = "event" in self.meanings and any(self.table.fields[self.meanings["event"]])
        for line in lines:
            video = self.table.fields.at[line, self.video]
            if not video:
                self.faults.add(line, "expected the name of a video, found none", self.video)
                continue
            if video.startswith("#"):
                self.faults.add(line, f"{video!r} is a comment; remove the {self.table.word}", self.video)
                continue
            found = {target: scores[target][line] for target in self.targets if not np.isnan(scores[target][line])}
            if not found:
                not_judged += 1
                continue
            segment = self._segment(line, video)
            rows[line] = LabelRow(
                video + (segment.suffix if segment else ""),
                found,
                self.table.where(line),
                action=self._action(line),
                split=self._split(line),
                group=self._meaning("group", line),
                event=(self._meaning("event", line) or f"row {self.table.where(line)}") if has_events else None,
                segment=segment,
                marks={target: tuple(judge[line] for judge in judges) for target, judges in marks.items()},
                info={name: self.table.fields.at[line, name] for name in self._information()},
            )
        return rows, not_judged

    def _meaning(self, meaning: str, line: int) -> str | None:
        name = self.meanings.get(meaning)
        return None if name is None else self.table.fields.at[line, name] or None

    def _action(self, line: int) -> str | None:
        action = self._meaning("action", line)
        if action is None and "action" in self.meanings:
            self.faults.add(line, "expected the action, found none", self.meanings["action"])
        return action

    def _split(self, line: int) -> Split | None:
        text = self._meaning("split", line)
        split: Split | None = "train" if text == "train" else "test" if text == "test" else None
        if split != text:
            self.faults.add(line, f"expected the split train or test, found {text!r}", self.meanings["split"])
        return split

    def _segment(self, line: int, video: str) -> Segment | None:
        units: tuple[tuple[str, str, Literal["seconds", "frames"]], ...] = (
            ("start", "end", "seconds"),
            ("start_frame", "end_frame", "frames"),
        )
        for first, last, unit in units:
            texts = [self._meaning(meaning, line) for meaning in (first, last)]
            if texts == [None, None]:
                continue
            start, end = (read_number((text or "").replace(",", ".")) for text in texts)
            if start is None or end is None or not 0 <= start < end:
                fault = f"expected {first} and {last} in {unit}, the second larger, found {texts[0]!r} and {texts[1]!r}"
                self.faults.add(line, fault)
                return None
            return Segment(video, start, end, unit)
        return None

    def _refuse_repeats(self, rows: dict[int, LabelRow]) -> None:
        first_line: dict[str, int] = {}
        for line, row in rows.items():
            first = first_line.setdefault(row.video, line)
            if first != line:
                fault = f"{row.video!r} is labelled already in {self.table.word} {first}; keep one of the two"
                self.faults.add(line, fault, self.video)

    # --- what was understood ---

    def _information(self) -> list[str]:
        return [name for name in self.others if name not in self.numeric and name not in self.targets]

    def _left_out(self) -> list[str]:
        summed = [one.target for one in self.sums]
        parts = [part for one in self.sums for part in one.parts]
        used = (*self.targets, *summed, *parts)
        return [name for name in self.others if name in self.numeric and name not in used]

    def _sentences(self, num_rows: int, not_judged: int) -> list[str]:
        commas = ", decimal commas" if set(self.commas) & {*self.targets, *self._judge_columns()} else ""
        adds = "adds or " if self._left_out() else ""
        hint = "" if self.options.targets else f" (--target {adds}narrows)"
        sentences = [
            f"table: {self.table.file} ({self.table.form}{commas}), {num_rows} judged rows, "
            f"the videos' names in {self.video!r}",
            f"targets: {', '.join(self.targets)}{hint}",
        ]
        if self.meanings:
            sentences.append(f"known by their names: {', '.join(self.meanings.values())}")
        if self._left_out():
            sentences.append(f"numbers that are not taken for scores: {', '.join(self._left_out())}")
        if self._information():
            sentences.append(f"kept as information: {', '.join(self._information())}")
        for name in self._information():
            texts = self._judged(name)
            if texts and all(map(is_nearly_number, texts)):
                sentences.append(
                    f"warning: {name} looks like numbers with something around them ({texts[0]!r}); "
                    "write plain numbers to learn it"
                )
        if not_judged:
            blanks = ", ".join(name for name in NOT_JUDGED if name)
            sentences.append(f"rows without a score ({blanks} or empty): {not_judged}")
        sentences += [f"{one}: checked on every row, learnt through its parts" for one in self.sums]
        if any(meaning in self.meanings for meaning in ("start", "start_frame")):
            sentences.append("start and end: these rows are segments of longer videos")
        return sentences

    def _judge_columns(self) -> list[str]:
        return [judge for judges in self.panels.values() for judge in judges]

    def _reading(self, num_rows: int, not_judged: int) -> dict[str, object]:
        return {
            "file": str(self.table.file),
            "form": self.table.form,
            "rows": num_rows,
            "not_judged": not_judged,
            "video_column": self.video,
            "targets": list(self.targets),
            "meanings": self.meanings,
            "information": self._information(),
            "not_scores": self._left_out(),
            "decimal_commas": self.commas,
            "panels": {target: list(judges) for target, judges in self.panels.items()},
            "sums": [str(one) for one in self.sums],
        }
