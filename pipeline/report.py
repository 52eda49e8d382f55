"""The pages of score-video: one for each routine, and an index. Each is a single HTML file that needs no other.

Names, warnings and metadata come from outside. The templates escape all of them, and the page's own security policy
allows one script, by its hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.manifest import describe_identity
from ..models.checkpoint import Head
from ..models.reference import ReferenceCoFInAl
from .charts import Ladder, Timeline, ladder, moments, timeline
from .evidence import TargetEvidence
from .pages import format_time, policy, render, script
from .pictures import Loop, film_strip, loop
from .ranking import Place
from .scoring import ScoredRoutine
from .verdict import Score, TargetScore


@dataclass(frozen=True)
class _Moment:
    label: str
    start: float
    value: float
    """Points."""
    loop: Loop | None


@dataclass(frozen=True)
class _Target:
    """What a page shows of one target."""

    name: str
    verdict: TargetScore
    ladder: Ladder | None
    evidence: TargetEvidence
    timeline: Timeline
    best: list[_Moment]
    worst: list[_Moment]
    accuracy: dict[str, Any] | None
    """The head's own figures on routines that it was not trained on."""
    ceiling: dict[str, Any] | None
    """How far one judge is from the others."""


@dataclass(frozen=True)
class Served:
    """Where serve-scores has what belongs to a report."""

    video: str
    """URL of the video: a player is in the page, and every `data-time` seeks it."""
    panel: str
    """URL of the panel's scores and note, which the page gets from there and puts there."""


def render_report(scored: ScoredRoutine, head: Head, served: Served | None = None) -> str:
    """Return the page of one routine.

    Args:
        scored: the routine.
        head: the head that scored it.
        served: for serve-scores, where the page's video and its panel's scores are.
    """
    score, evidence = scored.score, scored.score.evidence
    timed = bool(score.clip_times)
    spans = np.array(score.clip_times if timed else [(i, i + 1) for i in range(score.clips)], float)
    labels = [format_time(start) if timed else f"clip {i + 1}" for i, (start, _) in enumerate(spans)]
    loops: dict[int, Loop | None] = {}

    def moment(clip: int, value: float) -> _Moment:
        if clip not in loops:
            loops[clip] = loop(scored.thumbnails, *spans[clip])
        return _Moment(labels[clip], float(spans[clip, 0]), value, loops[clip])

    def shown(name: str, verdict: TargetScore) -> _Target:
        of_target = evidence.targets[name]
        contributions = of_target.contributions
        attention = of_target.attention
        by_grade = np.array(of_target.grade_effects if attention is None else np.transpose(attention))
        best, worst = ([moment(clip, contributions[clip]) for clip in clips] for clips in moments(contributions))
        results = head.metadata.get("results")
        return _Target(
            name=name,
            verdict=verdict,
            ladder=ladder(verdict),
            evidence=of_target,
            timeline=timeline(spans, contributions, by_grade),
            best=best,
            worst=worst,
            accuracy=_figures(results, "targets", f"{score.action}/{name}", name),
            ceiling=_figures(results, "panel", name),
        )

    targets = [shown(name, verdict) for name, verdict in score.targets.items()]
    contributions = np.array([evidence.targets[target.name].contributions for target in targets])
    code = script("own_score.js" if served is None else "panel.js") + script("report.js")
    return render(
        "report.html.j2",
        policy=policy(code, served=served is not None),
        script=code,
        score=score,
        name=Path(score.video).name,
        head_name=Path(score.head).name,
        targets=targets,
        training_set=evidence.training_set,
        attention=any(target.evidence.attention is not None for target in targets),
        timed=timed,
        spans=spans.tolist(),
        strip=film_strip(scored.thumbnails, spans[0, 0], spans[-1, 1]),
        moving=any(loops.values()),
        clip_rows=list(zip(labels, spans[:, 0].tolist(), contributions.T.tolist(), strict=True)),
        key=f"{score.provenance['video']['sha256'][:16]}-{score.provenance['head']['sha256'][:16]}",
        provenance=_provenance(score, head),
        served=served,
    )


def _figures(results: Any, part: str, *keys: str) -> dict[str, Any] | None:
    """Return the figures of the first key that a head's results have; strangers' heads may hold anything there."""
    found = results.get(part) if isinstance(results, dict) else None
    for key in keys:
        figures = found.get(key) if isinstance(found, dict) else None
        if isinstance(figures, dict) and all(type(figures.get(x)) in (int, float) for x in ("mae", "srcc", "n")):
            return figures
    return None


def _provenance(score: Score, head: Head) -> list[tuple[str, str]]:
    """What the score was made from, in words."""
    made = score.provenance
    rows = [("video", score.video), ("its sha256", made["video"]["sha256"])]
    if "container" in made:
        shape = made["container"]
        rows.append(
            (
                "frames",
                f"{shape['width']} x {shape['height']} at {shape['frames_per_s']} per second, {made['duration_s']} s, "
                f"read by {made['decoder']}",
            )
        )
    rows += [("head", score.head), ("its sha256", made["head"]["sha256"])]
    if not isinstance(head.network, ReferenceCoFInAl):
        rows.append(("trained on", f"{head.network.config.num_training} routines ({head.metadata.get('dataset')})"))
    rows.append(("extractor", describe_identity(score.extractor)))
    if "engine" in made:
        rows.append(("computed by", f"{made['engine']}, {made['precision']}, {made['device']}"))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())))
    return rows


def render_index(
    places: Sequence[Place], rank_by: str, failed: Sequence[Mapping[str, str]], evaluation: Mapping[str, Any] | None
) -> str:
    """Return the page that lists the reports in the order of the ranking.

    Args:
        places: the ranking; the report of `a/x` is `a/x.html` beside the index.
        rank_by: its target.
        failed: `{"video", "error"}` of the videos without a score.
        evaluation: from `score_evaluation.evaluate_scores`, where judges' scores were there.
    """
    scores = [place.score for place in places]
    interval = scores[0].scores[rank_by].interval if scores else None
    common = [x for x in scores[0].warnings if all(x in score.warnings for score in scores)] if scores else []
    return render(
        "index.html.j2",
        policy=policy(),
        places=places,
        rank_by=rank_by,
        targets=list(scores[0].scores) if scores else [],
        actions=any(score.action for score in scores),
        level=interval.level if interval else None,
        warnings=common,
        failed=failed,
        evaluation=evaluation,
    )
