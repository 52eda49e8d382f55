"""serve-scores in a real browser: Debian's Chromium, headless, driven by Playwright. `make test-browser` runs it."""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving_process import Server, serving

pytestmark = pytest.mark.browser

HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)<script>{{ 7*7 }}.mp4"
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_video) -> Path:
    """Videos to upload."""
    folder = tmp_path_factory.mktemp("uploads")
    for seed, name in enumerate(("routine.mp4", "other.mp4", HOSTILE, "long.mp4")):
        write_video(folder / name, seconds=15 if name == "long.mp4" else 5.2, seed=seed, size=(160, 120))
    return folder


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(trained, tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no script fails and nothing is refused by the security policy."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Policy" in message.text else None)
    yield page
    context.close()
    assert faults == []


def upload(page: Page, *files: Path) -> None:
    page.locator("#files").set_input_files([str(file) for file in files])


def row(page: Page, name: str, state: str = "done"):
    """Return the list's row of a video in a state, once it is there."""
    found = page.locator(f"tr[data-state={state}]", has=page.get_by_text(name, exact=True)).first
    expect(found).to_be_visible(timeout=PATIENCE_MS)
    return found


def current_time(page: Page) -> float:
    return page.locator("video").evaluate("video => video.currentTime")


def test_one_video_from_the_upload_to_the_panels_score(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    page.goto(server.url)
    seen = page.evaluate_handle(
        """() => {
            const seen = new Set();
            new MutationObserver(() => document.querySelectorAll("#uploads span, #rows [role=status]").forEach(
                (element) => seen.add(element.textContent))).observe(document.body,
                { subtree: true, childList: true, characterData: true });
            window.addEventListener("pagehide", () => sessionStorage.setItem("seen", [...seen].join("|")));
        }"""
    )
    assert seen
    upload(page, folder / "routine.mp4")
    page.wait_for_url(re.compile(r"/results/[0-9a-f]{32}$"))  # the report of a single video opens by itself
    said = page.evaluate("sessionStorage.getItem('seen')")
    assert re.search(r"routine\.mp4: [\d.]+ of [\d.]+ MB sent", said)
    assert re.search(r"extracting: \d+ of 5 s of video", said)
    expect(page.locator("h1")).to_have_text("routine.mp4")

    # a click on a moment, a clip of the timeline, a picture of the strip: the player goes there
    for place in (".moments button", ".hit >> nth=2", ".strip button >> nth=4"):
        target = page.locator(place).first
        target.click()
        expect(page.locator("video")).to_have_js_property("seeking", False)
        assert current_time(page) == pytest.approx(float(target.get_attribute("data-time")), abs=0.05)

    page.get_by_role("spinbutton", name="score").fill("7.25")
    page.get_by_label("Judge").fill("B. Judge")
    page.get_by_label("Note").fill("late <b>turn</b>")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#said")).to_have_text("Saved.")
    page.reload()
    expect(page.get_by_role("spinbutton", name="score")).to_have_value("7.25")
    page.get_by_role("link", name="All results").click()
    judged = row(page, "routine.mp4")
    expect(judged).to_contain_text("7.25")
    expect(judged).to_contain_text("B. Judge: late <b>turn</b>")
    for link, name in (("All results as CSV", "results.csv"), ("The panel's scores", "labels.csv")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link).click()
        download.value.save_as(tmp_path / name)
    (label,) = csv.DictReader((tmp_path / "labels.csv").open(newline=""))
    assert (label["score"], label["uploaded_as"]) == ("7.25", "routine.mp4")
    assert next(csv.DictReader((tmp_path / "results.csv").open(newline="")))["score panel"] == "7.25"


def test_several_at_once_a_broken_file_and_a_hostile_name(
    browser: Browser, page: Page, server: Server, folder: Path
) -> None:
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    other = browser.new_page()
    for one in (page, other):
        one.goto(server.url)
    upload(other, folder / "other.mp4", folder / "routine.mp4")
    dropped = page.evaluate_handle(
        """() => {
            const dropped = new DataTransfer();
            ["broken.mp4", "also broken.mp4"].forEach((name) => dropped.items.add(new File(["no video"], name)));
            return dropped;
        }"""
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    upload(page, folder / HOSTILE, folder / "routine.mp4")
    expect(row(page, "broken.mp4", "failed").get_by_role("alert")).to_contain_text("cannot be read as a video")
    row(page, "other.mp4")  # each page shows the other's videos
    row(other, HOSTILE)
    assert page.locator("img[src=x]").count() == 0
    row(page, HOSTILE).get_by_role("link").click()
    expect(page.locator("h1")).to_have_text(HOSTILE)
    other.close()

    page.goto(server.url)
    names = page.locator("#rows td:first-child a")
    page.get_by_role("button", name="routine", exact=True).click()
    assert names.all_inner_texts() == sorted(names.all_inner_texts(), key=str.lower)
    page.get_by_role("button", name="score", exact=True).click()
    scores = [float(text) for text in page.locator("#rows td:nth-child(3) b").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 2


def test_a_page_goes_on_after_kill_9(page: Page, trained: Path, folder: Path, tmp_path: Path) -> None:
    with serving(trained, tmp_path / "data") as server:
        page.goto(server.url)
        upload(page, folder / "long.mp4", folder / "routine.mp4")
        row(page, "long.mp4", "scoring")
        row(page, "routine.mp4", "queued")
        server.kill()
        expect(page.locator("#offline")).to_be_visible(timeout=PATIENCE_MS)
    port = re.search(r":(\d+)/", server.url)[1]
    with serving(trained, tmp_path / "data", "--port", port):
        row(page, "long.mp4")
        row(page, "routine.mp4")
        expect(page.locator("#offline")).to_be_hidden()


def test_the_token_opens_the_page(page: Page, trained: Path, tmp_path: Path) -> None:
    with serving(trained, tmp_path / "data", "--token", "three-long-words") as server:
        page.goto(server.url)
        page.get_by_label("Token").fill("three-long-word")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill("three-long-words")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("heading", name="Results")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_a_phone_and_a_wide_screen(page: Page, server: Server, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(server.url)
    row(page, "routine.mp4").get_by_role("link").click()
    expect(page.locator("video")).to_be_visible()
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.goto(server.url)
    video, report = (page.locator(place) for place in (".player", ".report"))
    row(page, "routine.mp4").get_by_role("link").click()
    beside = video.bounding_box()["x"] > report.bounding_box()["x"] + 300
    assert beside is (width == 1280)
