"""The pages and what their scripts ask for. The guard in `security` has checked each request before it comes here."""

import asyncio
import json
import logging
import math
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..console import one_sentence, print_message
from ..pages import policy, render, script, stated_policy
from .exports import labels_csv, results_csv
from .library import ID, Library, Panel, Result
from .ranges import send_video
from .security import FRAMES
from .uploads import TooLargeError, read_body, receive_file
from .worker import Worker

logger = logging.getLogger(__name__)

SPARE_DISK_BYTES = 2**28
"""That an upload leaves free, for the list and the reports."""
LARGEST_PANEL_BYTES = 64 * 1024
LONGEST_JUDGE, LONGEST_NOTE = 100, 5000
LOOK_S, ALIVE_S = 0.3, 15.0
"""How often the progress is looked at, and how long a page may hear nothing."""


@dataclass
class Service:
    """The routes of one server."""

    library: Library
    worker: Worker
    head_name: str
    targets: Sequence[str]
    """The names of the head's scores, sums included."""
    actions: Sequence[str]
    """The actions that a user can choose from; empty if the head does not know several."""
    warnings: Sequence[str]
    """Of the head."""
    most_bytes: int
    """Of an upload."""
    is_stopping: bool = False
    """Ends the streams of events, so that the server can."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/list", self.rows),
                Route("/events", self.events),
                Route("/upload", self.upload, methods=["POST"]),
                Route("/results.csv", self.export),
                Route("/labels.csv", self.export_labels),
                Route("/results/{id}", self.report),
                Route("/results/{id}", self.delete, methods=["DELETE"]),
                Route("/results/{id}/video", self.video),
                Route("/results/{id}/panel", self.panel),
                Route("/results/{id}/panel", self.set_panel, methods=["PUT"]),
            ],
            exception_handlers={HTTPException: _say, Exception: _say_fault},
        )

    # --- the page ---

    def page(self, request: Request) -> Response:
        code = script("serve.js")
        rules = policy(code, served=True)
        page = render(
            "serve.html.j2",
            policy=rules,
            script=code,
            head_name=self.head_name,
            most_bytes=self.most_bytes,
            **self._list(),
        )
        return HTMLResponse(page, headers={"Content-Security-Policy": rules + FRAMES})

    def rows(self, request: Request) -> Response:
        return HTMLResponse(render("results.html.j2", **self._list()))

    def _list(self) -> dict[str, Any]:
        results = self.library.results()
        waiting = [result.id for result in reversed(results) if result.state == "queued"]
        return {
            "results": results,
            "targets": self.targets,
            "actions": self.actions,
            "warnings": self.warnings,
            "before": {id: place for place, id in enumerate(waiting)},
            "local_time": lambda iso: datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M"),
        }

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        """Yield the list's version and the progress when they change."""
        last, silent_s = "", 0.0
        while not self.is_stopping:
            progress = self.worker.progress
            current = {progress[0]: progress[1].as_json()} if progress else {}
            state = json.dumps({"version": self.worker.version, "progress": current})
            if state != last or silent_s >= ALIVE_S:
                yield f"data: {state}\n\n"
                last, silent_s = state, 0.0
            await asyncio.sleep(LOOK_S)
            silent_s += LOOK_S

    # --- uploads ---

    async def upload(self, request: Request) -> Response:
        """Stream the body, which is the video itself, to disk; its name is no more than a text."""
        name, action = request.query_params.get("name", ""), request.query_params.get("action") or None
        if action is not None and action not in self.actions:
            raise HTTPException(400, f"this head does not know the action {action[:100]!r}")
        announced = int(request.headers.get("content-length", 0))
        if announced > self.most_bytes:
            raise HTTPException(413, self._too_large())
        if shutil.disk_usage(self.library.videos).free < announced + SPARE_DISK_BYTES:
            raise HTTPException(507, "there is no room on the server's disk for this video")
        try:
            file = await receive_file(request.stream(), self.library.videos, self.most_bytes)
        except TooLargeError:
            raise HTTPException(413, self._too_large()) from None
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        except OSError as error:
            raise HTTPException(507, f"the server cannot keep the video: {error.strerror}") from error
        id = await run_in_threadpool(self.library.add, file, name, action)
        self.worker.changed()
        return JSONResponse({"id": id}, 201)

    def _too_large(self) -> str:
        return f"the video is larger than {self.most_bytes / 1e9:g} GB, which this server takes at most (--max-upload)"

    # --- one result ---

    def _find(self, request: Request) -> Result:
        id = request.path_params["id"]
        result = self.library.find(id) if ID.fullmatch(id) else None
        if result is None:
            raise HTTPException(404, "there is no such result; it may have been deleted")
        return result

    def report(self, request: Request) -> Response:
        result = self._find(request)
        if result.state != "done":
            raise HTTPException(404, result.error or "this video has not been scored yet; the list shows how far it is")
        page = self.library.report_of(result.id).read_text("utf-8")
        return HTMLResponse(page, headers={"Content-Security-Policy": stated_policy(page) + FRAMES})

    def video(self, request: Request) -> Response:
        path = self.library.videos / self._find(request).file
        return send_video(path, request.headers.get("range"))

    def delete(self, request: Request) -> Response:
        result = self._find(request)
        if not self.library.delete(result.id):
            raise HTTPException(409, f"{result.name} is being scored; delete it afterwards")
        self.worker.changed()
        return Response(status_code=204)

    def panel(self, request: Request) -> Response:
        return JSONResponse(asdict(self._find(request).panel))

    async def set_panel(self, request: Request) -> Response:
        result = await run_in_threadpool(self._find, request)
        if result.score is None:
            raise HTTPException(409, f"{result.name} has no score yet")
        try:
            panel = read_panel(await read_body(request.stream(), LARGEST_PANEL_BYTES), [*result.score.scores])
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"not saved: {error}") from None
        await run_in_threadpool(self.library.set_panel, result.id, panel)
        self.worker.changed()
        return JSONResponse(asdict(panel))

    # --- tables ---

    def export(self, request: Request) -> Response:
        return _csv("results.csv", results_csv(self.library.results()))

    def export_labels(self, request: Request) -> Response:
        return _csv("labels.csv", labels_csv(self.library.results()))


def read_panel(body: bytes, targets: Sequence[str]) -> Panel:
    """Return what a page sent as the panel's scores and note.

    Raises:
        ValueError: it is something else; the message says what.
    """
    document = json.loads(body)
    if not isinstance(document, dict) or document.keys() != {"scores", "judge", "note"}:
        raise ValueError("expected scores, judge and note")
    scores, judge, note = (document[key] for key in ("scores", "judge", "note"))
    if not isinstance(scores, dict) or not scores.keys() <= {*targets}:
        raise ValueError(f"the scores of this routine are {', '.join(targets)}")
    for target, points in scores.items():
        if type(points) not in (int, float) or not math.isfinite(points):
            raise ValueError(f"{target} is not a number")
    for what, text, most in (("judge", judge, LONGEST_JUDGE), ("note", note, LONGEST_NOTE)):
        if not isinstance(text, str) or len(text) > most:
            raise ValueError(f"the {what} is longer than {most} characters")
    return Panel({target: float(points) for target, points in scores.items()}, judge, note)


def _csv(name: str, content: bytes) -> Response:
    return Response(content, media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _say(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


def _say_fault(request: Request, error: Exception) -> Response:
    fault = f"a fault of this program, {type(error).__name__}: {one_sentence(error)}"
    print_message(f"error: {fault}; --debug shows where")
    logger.debug("where", exc_info=error)
    return PlainTextResponse(f"{fault}\n", 500)
