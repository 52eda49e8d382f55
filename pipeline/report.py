"""The one-page report of a scored routine: a single HTML file that needs nothing beside it."""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data.feature_store import describe_identity
from ..data.files import write_atomic
from .plots import plot_score
from .scoring import Score


def write_report(score: Score, path: str | Path) -> None:
    """Write the report of a score as one HTML page.

    Raises:
        OSError: the page cannot be written.
    """
    environment = Environment(loader=PackageLoader("cofinal.pipeline", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        score=score,
        name=Path(score.video).name,
        extractor=describe_identity(score.extractor),
        plot=base64.b64encode(plot_score(score.targets)).decode(),
    )
    write_atomic(Path(path), page.encode("utf-8", "backslashreplace"))
