"""The pages of score-video: one for each routine, and an index. Each is a single HTML file that needs no other."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data.feature_store import describe_identity
from ..models.checkpoint import Head
from .plots import plot_score
from .ranking import Place
from .scoring import ScoredRoutine

ENVIRONMENT = Environment(
    loader=PackageLoader("cofinal.pipeline", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["url"] = lambda path: quote(path, errors="surrogateescape")


def render_report(scored: ScoredRoutine, head: Head) -> str:
    """Return the page of one routine."""
    score = scored.score
    return ENVIRONMENT.get_template("report.html.j2").render(
        score=score,
        name=Path(score.video).name,
        extractor=describe_identity(score.extractor),
        plot=base64.b64encode(plot_score(score.targets)).decode(),
    )


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
    return ENVIRONMENT.get_template("index.html.j2").render(
        places=places, rank_by=rank_by, failed=failed, evaluation=evaluation
    )
