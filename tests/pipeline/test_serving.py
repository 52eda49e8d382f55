"""serve-scores without a browser: uploads, the queue, the panel's scores, the tables, what is refused, kill -9."""

import csv
import io
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_process import serving
from starlette.testclient import TestClient

from cofinal import score_video, train_head
from cofinal.pipeline.options import ExtractorOptions
from cofinal.pipeline.scoring import Scorer
from cofinal.pipeline.serving.app import Service
from cofinal.pipeline.serving.library import LONGEST_NAME, Library, clean_name
from cofinal.pipeline.serving.ranges import LONGEST_RANGE, send_video
from cofinal.pipeline.serving.security import COOKIE, Guard
from cofinal.pipeline.serving.worker import Worker

URL = "http://127.0.0.1:8000"
HOSTILE = "../../../etc/<img src=x onerror=alert(1)>'\"; DROP TABLE results;--\x00\n=1+1.mp4"
MOST_BYTES = 2_000_000


class Site:
    """A server's app in this process, with its real worker."""

    def __init__(self, folder: Path, scorer: Scorer, *, host: str = "127.0.0.1", token: str | None = None) -> None:
        self.library = Library(folder)
        self.worker = Worker(scorer, self.library)
        self.service = Service(
            self.library,
            self.worker,
            head_name=scorer.head_path.name,
            targets=scorer.score_names,
            actions=[],
            warnings=scorer.warnings,
            most_bytes=MOST_BYTES,
        )
        self.client = TestClient(Guard(self.service.app(), host, token), base_url=URL, follow_redirects=False)

    def upload(self, content: bytes, name: str) -> str:
        answer = self.client.post("/upload", params={"name": name}, content=content)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id

    def wait(self, id: str) -> str:
        """Return the state in which a video ends."""
        return wait_for(lambda: (found := self.library.find(id)) and found.state, "done", "failed")

    def close(self) -> None:
        if self.worker.is_alive():
            self.worker.stop()
        self.library.close()


def wait_for(look, *wanted: object, seconds: float = 120) -> str:
    """Return what a look gives once it is one of the wanted values."""
    end = time.monotonic() + seconds
    while (found := look()) not in wanted:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def scorer(trained: Path) -> Iterator[Scorer]:
    with Scorer(trained, options=ExtractorOptions()) as scorer:
        yield scorer


@pytest.fixture
def site(tmp_path: Path, scorer: Scorer) -> Iterator[Site]:
    site = Site(tmp_path / "data", scorer)
    yield site
    site.close()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, scorer: Scorer, videos: Path) -> Iterator[tuple[Site, list[str]]]:
    """A site with six results, the last one of a hostile name, and one failure."""
    site = Site(tmp_path_factory.mktemp("served") / "data", scorer)
    site.worker.start()
    names = [*(f"v{i}.mp4" for i in range(5)), HOSTILE]
    ids = [site.upload((videos / f"v{i}.mp4").read_bytes(), name) for i, name in enumerate(names)]
    ids.append(site.upload(b"no video", "broken.mov"))
    assert [site.wait(id) for id in ids] == ["done"] * 6 + ["failed"]
    yield site, ids
    site.close()


# --- results ------------------------------------------------------------------------------------------------------


def test_a_result_is_the_score_of_score_video_with_its_report(
    scored: tuple[Site, list[str]], videos: Path, trained: Path
) -> None:
    site, ids = scored
    result = site.library.find(ids[2])
    assert result.score.targets == score_video(videos / "v2.mp4", trained).targets
    assert result.score.video == "v2.mp4"
    page = site.client.get(f"/results/{ids[2]}")
    assert f'src="/results/{ids[2]}/video"' in page.text
    assert f'data-place="/results/{ids[2]}/panel"' in page.text
    assert str(site.library.folder) not in page.text
    listed = site.client.get("/").text
    assert f"<b>{result.score.targets['score'].score:.2f}</b>" in listed


def test_a_bad_video_gives_its_reason_and_the_server_lives_on(scored: tuple[Site, list[str]]) -> None:
    site, ids = scored
    failed = site.library.find(ids[-1])
    assert failed.error.startswith("broken.mov cannot be read as a video")
    assert failed.error in site.client.get("/list").text
    assert failed.error in site.client.get(f"/results/{ids[-1]}").text
    assert site.worker.is_alive()


def test_a_hostile_name_stays_a_text(scored: tuple[Site, list[str]]) -> None:
    site, ids = scored
    files = {path.name for path in site.library.videos.iterdir()}
    assert all(re.fullmatch(r"[0-9a-f]{32}\.(mp4|mov)", name) for name in files)
    assert {path.name for path in site.library.folder.parent.iterdir()} == {"data"}
    for page in ("/", "/list", f"/results/{ids[5]}"):
        text = site.client.get(page).text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
    (row,) = [row for row in table(site, "/results.csv") if "onerror" in row["video"]]
    assert "\n" not in row["video"]


@given(st.text(max_size=400))
def test_names_are_short_visible_and_without_folders(name: str) -> None:
    cleaned = clean_name(name)
    assert cleaned
    assert cleaned.isprintable()
    assert not {"/", "\\"} & {*cleaned}
    assert len(cleaned) <= LONGEST_NAME
    assert cleaned.strip(".") != ""


def test_a_result_can_be_deleted(site: Site, videos: Path) -> None:
    id = site.upload((videos / "v0.mp4").read_bytes(), "v0.mp4")
    assert site.client.delete(f"/results/{id}").status_code == 204
    assert list(site.library.videos.iterdir()) == []
    assert site.client.delete(f"/results/{id}").status_code == 404
    id = site.upload(b"x", "v1.mp4")
    assert site.library.next_queued().id == id
    assert site.client.delete(f"/results/{id}").status_code == 409


# --- the panel ------------------------------------------------------------------------------------------------------


def table(site: Site, path: str) -> list[dict[str, str]]:
    answer = site.client.get(path)
    assert answer.headers["content-disposition"].startswith("attachment")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_the_panels_scores_are_kept_shown_exported_and_learnt(scored: tuple[Site, list[str]], tmp_path: Path) -> None:
    site, ids = scored
    notes = ["late turn", "=HYPERLINK(1)", "7", "8,5", "", "two\nlines"]
    for i, (id, note) in enumerate(zip(ids, notes, strict=False)):
        body = {"scores": {"score": 5 + i}, "judge": f"{i}", "note": note}
        assert site.client.put(f"/results/{id}/panel", json=body).status_code == 200
        assert site.client.get(f"/results/{id}/panel").json() == body
    listed = site.client.get("/list").text
    assert "late turn" in listed
    assert 'data-sort="9.0">9.00<' in listed

    rows = {row["video"]: row for row in table(site, "/results.csv")}
    assert (rows["v3.mp4"]["score panel"], rows["v3.mp4"]["state"]) == ("8.0", "done")
    assert float(rows["v3.mp4"]["score"]) == site.library.find(ids[3]).score.targets["score"].score
    assert "cannot be read" in rows["broken.mov"]["error"]
    labels = table(site, "/labels.csv")
    assert [row["score"] for row in labels] == ["10.0", "9.0", "8.0", "7.0", "6.0", "5.0"]
    assert not [cell for row in [*labels, *rows.values()] for cell in row.values() if cell[:1] in "=@" and cell]

    exported = tmp_path / "labels.csv"
    exported.write_bytes(site.client.get("/labels.csv").content)
    result = train_head(site.library.videos, "csv", labels=exported, out=tmp_path / "h.safetensors", epochs=1, folds=2)
    assert list(result.results["targets"]) == ["score"]
    assert result.results["training"]["videos"] == 6
    assert {row["true"] for row in result.predictions} == {5, 6, 7, 8, 9, 10}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("no JSON", "not saved"),
        ('{"scores": {}}', "expected scores, judge and note"),
        ('{"scores": {"other": 1}, "judge": "", "note": ""}', "the scores of this routine are score"),
        ('{"scores": {"score": "7"}, "judge": "", "note": ""}', "score is not a number"),
        ('{"scores": {"score": NaN}, "judge": "", "note": ""}', "score is not a number"),
        ('{"scores": {"score": true}, "judge": "", "note": ""}', "score is not a number"),
        ('{"scores": {}, "judge": 7, "note": ""}', "the judge is"),
        (json.dumps({"scores": {}, "judge": "", "note": "x" * 5001}), "the note is longer"),
        ("[" * 100_000, "not saved"),
    ],
)
def test_other_entries_are_refused(scored: tuple[Site, list[str]], body: str, message: str) -> None:
    site, ids = scored
    before = site.library.find(ids[0]).panel
    answer = site.client.put(f"/results/{ids[0]}/panel", content=body)
    assert answer.status_code == 400
    assert message in answer.text
    assert site.library.find(ids[0]).panel == before


# --- uploads ------------------------------------------------------------------------------------------------------


def test_an_upload_that_is_too_large_or_breaks_off_leaves_nothing(site: Site) -> None:
    def pieces(total: int) -> Iterator[bytes]:
        for _ in range(total // 1000):
            yield bytes(1000)

    answer = site.client.post("/upload?name=a.mp4", content=bytes(MOST_BYTES + 1))
    assert (answer.status_code, "--max-upload" in answer.text) == (413, True)
    answer = site.client.post("/upload?name=a.mp4", content=pieces(MOST_BYTES + 1000))  # without a Content-Length
    assert answer.status_code == 413
    with pytest.raises(RuntimeError, match="gone"):
        site.client.post("/upload?name=a.mp4", content=breaking_off())
    assert site.client.post("/upload?name=a.mp4&action=Ball", content=b"x").status_code == 400
    assert list(site.library.videos.iterdir()) == []
    assert site.library.results() == []


def breaking_off() -> Iterator[bytes]:
    yield bytes(1000)
    raise RuntimeError("gone")


# --- video --------------------------------------------------------------------------------------------------------


def test_ranges_of_the_video_are_bounded(scored: tuple[Site, list[str]], tmp_path: Path) -> None:
    site, ids = scored
    video = (site.library.videos / site.library.find(ids[0]).file).read_bytes()
    get = lambda range: site.client.get(f"/results/{ids[0]}/video", headers={"Range": range})  # noqa: E731
    answer = get("bytes=10-19")
    assert (answer.status_code, answer.content) == (206, video[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(video)}"
    assert answer.headers["content-type"] == "video/mp4"
    assert get("bytes=-7").content == video[-7:]
    assert get(f"bytes=5-{10**14}").content == video[5:]
    assert get(f"bytes={len(video)}-").status_code == 416
    for whole in ("bytes=0-1,4-5", "bytes=-", "bytes=9" + "9" * 4000 + "-", "lines=1-2"):
        assert (get(whole).status_code, get(whole).content) == (200, video)

    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(3 * LONGEST_RANGE)
    assert send_video(large, "bytes=0-").headers["content-length"] == str(LONGEST_RANGE)


# --- security -----------------------------------------------------------------------------------------------------


def test_results_are_found_by_their_id_only(scored: tuple[Site, list[str]]) -> None:
    site, ids = scored
    for id in ("0" * 32, ids[0][:-1], "1", "..%2f..%2fetc%2fpasswd", f"{ids[0]}.mp4"):
        for rest in ("", "/video", "/panel"):
            assert site.client.get(f"/results/{id}{rest}").status_code == 404
    assert len({*ids}) == len(ids)


@pytest.mark.parametrize(
    ("listens", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost:9000", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "evil.example", 400),
        ("127.0.0.1", "localhost.evil.example:8000", 400),
        ("127.0.0.1", "192.168.0.7:8000", 400),
        ("127.0.0.1", "", 400),
        ("127.0.0.1", "[::1", 400),
        ("0.0.0.0", "192.168.0.7:8000", 200),
        ("0.0.0.0", "evil.example", 400),
        ("club.example", "club.example:8000", 200),
    ],
)
def test_the_host_header_must_be_ours(scored: tuple[Site, list[str]], listens: str, host: str, status: int) -> None:
    client = TestClient(Guard(scored[0].service.app(), listens, None), base_url=URL)
    for path in ("/", "/results.csv", f"/results/{scored[1][0]}"):
        assert client.get(path, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": URL}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, False),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": URL}, False),
        ({}, False),
    ],
)
def test_posts_of_other_sites_are_refused(
    scored: tuple[Site, list[str]], headers: dict[str, str], refused: bool
) -> None:
    site, ids = scored
    place = f"/results/{ids[1]}/panel"
    before, number = site.client.get(place).json(), len(site.library.results())
    body = {"scores": {"score": 1}, "judge": "evil", "note": ""}
    assert (site.client.put(place, json=body, headers=headers).status_code == 403) is refused
    assert (site.client.get(place).json() == body) is not refused
    site.client.put(place, json=before)
    if refused:
        assert site.client.post("/upload?name=x.mp4", content=b"x", headers=headers).status_code == 403
        assert site.client.delete(f"/results/{ids[1]}", headers=headers).status_code == 403
    assert len(site.library.results()) == number


def test_every_answer_forbids_what_data_could_do(scored: tuple[Site, list[str]]) -> None:
    site, ids = scored
    pages = ("/", "/list", "/results.csv", f"/results/{ids[0]}", f"/results/{ids[0]}/video", "/nothing")
    for path in pages:
        headers = site.client.get(path).headers
        rules = dict(rule.partition(" ")[::2] for rule in headers["content-security-policy"].split("; "))
        assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules.get("script-src", f"'sha256-{'A' * 43}='"))
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_token_is_required_everywhere(scored: tuple[Site, list[str]]) -> None:
    site, ids = scored
    client = TestClient(Guard(site.service.app(), "0.0.0.0", "three-words"), base_url=URL, follow_redirects=False)
    paths = ("/", "/list", "/events", "/results.csv", "/labels.csv", f"/results/{ids[0]}")
    for path in (*paths, f"/results/{ids[0]}/video", f"/results/{ids[0]}/panel", "/token", "/nothing"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer three-word"}).status_code == 401
        assert client.get(path, headers={"Cookie": f"{COOKIE}=three-words"}).status_code == 401
    assert client.post("/upload?name=x.mp4", content=b"x").status_code == 401
    assert client.put(f"/results/{ids[0]}/panel", content="{}").status_code == 401
    assert client.delete(f"/results/{ids[0]}").status_code == 401
    assert client.get("/list", headers={"Authorization": "Bearer three-words"}).status_code == 200

    assert client.post("/token", data={"token": "wrong"}).status_code == 401
    assert client.post("/token", content=bytes(10_000)).status_code == 401
    answer = client.post("/token", data={"token": "three-words"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= {*answer.headers["set-cookie"].split("; ")}
    assert "three-words" not in answer.headers["set-cookie"]
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "add --token"),
        (["--token", "short"], "at least 8"),
        (["--fps", "25"], "leave it out"),
        (["--max-upload", "0"], "max-upload must be more than 0"),
        (["--port", "70000"], "cannot listen on 127.0.0.1"),
        (["--head", "x.pkl"], "score-video takes it"),
        (["--head", "gone.safetensors"], "does not exist"),
    ],
)
def test_bad_options_start_nothing(command, trained: Path, tmp_path: Path, options: list, message: str) -> None:
    head = [] if "--head" in options else ["--head", trained]
    ended = command("serve-scores", *head, "--data", tmp_path / "data", *options)
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "data").exists()


# --- kill -9 ------------------------------------------------------------------------------------------------------


def test_a_folder_has_one_server(site: Site) -> None:
    with pytest.raises(ValueError, match="is in use by process"):
        Library(site.library.folder)


def test_a_score_of_an_earlier_version_is_made_again(site: Site) -> None:
    id = site.upload(b"x", "a.mp4")
    folder = site.library.folder
    site.library.close()
    with sqlite3.connect(folder / "results.sqlite") as database:
        database.execute("UPDATE results SET state = 'done', score = '{\"format\": 0}'")
    site.library = Library(folder)
    assert site.library.find(id).state == "queued"


def test_it_survives_kill_9_and_ctrl_c(trained: Path, videos: Path, write_video, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", seconds=15, seed=1).read_bytes()
    data = tmp_path / "data"

    def upload(name: str, content: bytes) -> str:
        answer = httpx2.post(f"{server.url}upload", params={"name": name}, content=content, timeout=60)
        id: str = answer.json()["id"]
        return id

    def state(id: str) -> str:
        found = re.search(rf'data-id="{id}" data-state="(\w+)"', httpx2.get(f"{server.url}list", timeout=60).text)
        return found[1] if found else "gone"

    def half() -> Iterator[bytes]:
        yield long[: len(long) // 2]
        wait_for(lambda: bool(list((data / "videos").glob(".writing-*"))), True)
        server.kill()

    with serving(trained, data) as server:
        ids = [upload("long.mp4", long), upload("v0.mp4", (videos / "v0.mp4").read_bytes())]
        wait_for(lambda: state(ids[0]), "scoring")
        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{server.url}upload?name=half.mp4", content=half(), timeout=60)
    (data / "videos" / f"{'a' * 32}.mp4").write_bytes(b"whole, but not yet in the list")

    with serving(trained, data) as server:
        assert sorted(path.stem for path in (data / "videos").iterdir()) == sorted(ids)
        for id in ids:
            wait_for(lambda id=id: state(id), "done")
        upload("again.mp4", long)
        with httpx2.stream("GET", f"{server.url}events", timeout=60) as events:  # which must not keep it from ending
            assert any("of video" in line for line in events.iter_lines())
            assert server.interrupt() == 130
    with sqlite3.connect(data / "results.sqlite") as database:
        assert database.execute("SELECT state FROM results").fetchall() == [("done",), ("done",), ("queued",)]
