"""The pages: whole in one file, true to the score, small, and safe whatever a file or a head is called."""

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cofinal import score_videos, train_head
from cofinal.extractors.thumbnails import Thumbnail
from cofinal.pipeline.evidence import Neighbour, TargetEvidence
from cofinal.pipeline.options import ExtractorOptions
from cofinal.pipeline.pages import script
from cofinal.pipeline.report import Served, render_report
from cofinal.pipeline.scoring import ScoredRoutine, Scorer

HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)<script>{{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "source", "input", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect", "circle", "path") and tag not in self.open:
            return
        assert self.open.pop() == tag, f"{tag} is closed out of order"

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)


def check(page: str) -> Page:
    """Check that a page is whole and fetches, runs and sends nothing of others."""
    parsed = Page(page)
    assert parsed.open == []
    assert "".join(parsed.texts.get("script", [])) in ("", script("own_score.js") + script("report.js"))
    for tag, attributes in parsed.tags:
        assert tag not in ("iframe", "object", "embed", "link", "base")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "data-still"):
            assert (attributes.get(name) or "data:").startswith("data:")
        if "href" in attributes:
            assert re.fullmatch(r"[\w./%~-]+", attributes["href"])
    assert "http:" not in page
    assert "https:" not in page
    policy = next(attributes["content"] for _, attributes in parsed.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes["for"] for tag, attributes in parsed.tags if tag == "label"}
    assert labelled == {attributes["id"] for tag, attributes in parsed.tags if tag in ("input", "textarea")}
    assert all("alt" in attributes for tag, attributes in parsed.tags if tag == "img")
    return parsed


@pytest.fixture(scope="module")
def scored(videos: Path, trained: Path, write_video, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A routine of four clips with its pictures, and the head that scored it."""
    video = write_video(tmp_path_factory.mktemp("routine") / "routine.mp4", seconds=5.2, seed=3)
    with Scorer(trained, options=ExtractorOptions()) as scorer:
        return scorer.score(video, thumbnails=True), scorer.head


def test_a_report_shows_score_times_moments_and_where_they_come_from(scored: tuple) -> None:
    routine, head = scored
    page = render_report(routine, head)
    parsed = check(page)
    score, evidence = routine.score, routine.score.evidence.targets["score"]
    verdict = score.targets["score"]
    assert f"{verdict.score:.2f} <small>points" in page
    assert "{:.2f} to {:.2f}".format(*verdict.coarse.span) in page
    assert f"{verdict.fine.subgrade} of {verdict.fine.of}" in page
    assert f"{evidence.percentile:.0f}% of" in page
    assert evidence.nearest[0].name in page
    assert score.provenance["video"]["sha256"] in page
    assert score.provenance["head"]["sha256"] in page
    strip = [attributes for tag, attributes in parsed.tags if tag == "div" and "data-time" in attributes]
    assert len(strip) == 8
    bars = [attributes for tag, attributes in parsed.tags if attributes.get("class") == "hit"]
    assert [float(bar["data-time"]) for bar in bars] == [round(start, 2) for start, _ in score.clip_times]
    strongest = max(map(abs, evidence.contributions))
    assert f"{strongest:.2f}" in page
    for _, attributes in parsed.tags:
        if attributes.get("data-still"):
            assert attributes["src"].startswith("data:image/webp")
    assert "<video" not in page


def test_a_server_gets_a_player_that_every_moment_seeks(scored: tuple) -> None:
    parsed = Page(render_report(*scored, Served("/video/x", "/panel/x")))
    (player,) = [attributes for tag, attributes in parsed.tags if tag == "video"]
    assert player["src"] == "/video/x"
    assert [tag for tag, attributes in parsed.tags if "data-time" in attributes].count("button") >= 8 + 4


def test_features_have_a_report_without_times_and_pictures(command, store: Path, trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.load(store / "v0.npy"))
    assert command("score-video", tmp_path / "r.npy", "--head", trained, "--report", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    check(page)
    assert "clip 1" in page
    assert "<img" not in page


def test_names_and_metadata_from_outside_stay_text(videos: Path, store: Path, scored: tuple, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(videos / "v1.mp4", folder / f"{HOSTILE}.mp4")
    shutil.copy(videos / "v2.mp4", folder / "javascript:alert(1).mp4")
    (folder / "<s>broken.mp4").touch()
    lines = [f"v{i},{5 + i / 2}" for i in range(8)]
    (tmp_path / "l.csv").write_text("\n".join(['video,"<i>Grace"', *lines]) + "\n")
    head = tmp_path / "<u>head.safetensors"
    train_head(store, "csv", labels=tmp_path / "l.csv", out=head, epochs=1, folds=2)
    score_videos(folder, head, report=tmp_path / "out")
    pages = sorted((tmp_path / "out").glob("*.html"))
    assert len(pages) == 3
    for path in (*pages, head.with_suffix(".html")):
        page = path.read_text()
        check(page)
        for tag in ("<s>", "<i>", "<u>", "<img src=x", "<script>alert"):
            assert tag not in page
    assert "{{ 7*7 }}" in (tmp_path / "out" / f"{HOSTILE}.html").read_text()

    # what a stranger's head says of itself
    routine, opened = scored
    score = routine.score
    strange = TargetEvidence([1.0] * score.clips, [[0.0]] * score.clips, None, 50.0, [Neighbour(HOSTILE, None, 1.0)])
    evidence = replace(score.evidence, targets={"score": strange}, training_set=HOSTILE, doubts=[HOSTILE])
    score = replace(score, evidence=evidence, warnings=[HOSTILE], action=HOSTILE, head=HOSTILE)
    results = {"targets": [HOSTILE], "panel": {"score": {"mae": "x"}}}
    metadata = {**opened.metadata, "dataset": HOSTILE, "results": results}
    check(render_report(replace(routine, score=score), replace(opened, metadata=metadata)))


def test_the_largest_report_is_under_10_mib(scored: tuple) -> None:
    """Seven targets, different moments for each, and pictures that no picture format makes small."""
    routine, head = scored
    rng = np.random.default_rng(0)
    clips = 256
    pictures = []
    for number in range(8 * clips):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (18, 32, 3), dtype=np.uint8)).resize((256, 144)).save(buffer, "JPEG")
        pictures.append(Thumbnail(0.16 * number, buffer.getvalue()))
    names = [f"T{number}" for number in range(7)]
    of_target = {
        name: TargetEvidence(rng.normal(size=clips).tolist(), rng.normal(size=(clips, 4)).tolist(), None, 50.0, [])
        for name in names
    }
    score = replace(
        routine.score,
        targets=dict.fromkeys(names, routine.score.targets["score"]),
        clips=clips,
        clip_times=[(1.28 * i, 1.28 * (i + 1)) for i in range(clips)],
        evidence=replace(routine.score.evidence, targets=of_target),
    )
    page = render_report(ScoredRoutine(score, routine.features, pictures), head)
    check(page)
    assert page.count("image/webp") >= 30
    assert len(page.encode()) < 10 * 2**20


def test_the_page_of_a_head_has_figures_plots_and_links_to_the_worst_misses(trained: Path, videos: Path) -> None:
    page = trained.with_suffix(".html").read_text()
    parsed = check(page)
    links = {attributes["href"] for tag, attributes in parsed.tags if tag == "a"}
    assert len(links) == 5
    assert all((trained.parent / link).is_file() for link in links)
    assert len([tag for tag, _ in parsed.tags if tag == "circle"]) == 8
