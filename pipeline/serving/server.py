"""serve-scores: a head and its backbone, loaded once, behind a page in the browser."""

import math
import socket
from pathlib import Path
from types import FrameType

import platformdirs
import uvicorn

from ..console import print_message, waiting
from ..options import ExtractorOptions, takes_fields_of
from ..scoring import Scorer
from .app import Service
from .library import Library
from .security import Guard, is_local
from .worker import Worker

SHORTEST_TOKEN = 8


@takes_fields_of(ExtractorOptions)
def serve_scores(
    head: str | Path | None = None,
    *,
    port: int = 8000,
    data: str | Path | None = None,
    token: str | None = None,
    host: str = "127.0.0.1",
    max_upload: float = 4.0,
    options: ExtractorOptions,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        head: a head file that train-head wrote; None for the default head.
        port: the port to listen on; 0 for a free one.
        data: the folder of videos, reports and the list of results; None for one in the user's data folder.
        token: what everyone has to give first; needed unless only this machine can reach `host`.
        host: the address to listen on.
        max_upload: the size of the largest video in GB.
        options: the fields of `ExtractorOptions`, given as keyword arguments.

    Raises:
        ValueError: bad arguments, no head, no backbone, or another program has the port or the folder.
        OSError: the folder cannot be written.
        KeyboardInterrupt: Ctrl-C.
    """
    if options.fps is not None:
        raise ValueError("--fps is for folders of frames, and a browser uploads videos: leave it out")
    if head is not None and Path(head).suffix == ".pkl":
        raise ValueError(f"{head} does not record what it scores: score-video takes it, serve-scores does not")
    if not 0 < max_upload < math.inf:
        raise ValueError(f"max-upload must be more than 0 GB, not {max_upload:g}")
    if token is None and not is_local(host):
        raise ValueError(f"--host {host} lets others in: add --token, which they have to give")
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ValueError(f"--token needs at least {SHORTEST_TOKEN} letters, digits or signs, all of them ASCII")
    with Scorer(head, options=options) as scorer, _listen(host, port) as listener:
        library = Library(Path(data) if data is not None else Path(platformdirs.user_data_dir("cofinal")) / "scores")
        try:
            with waiting("loading the backbone"):
                scorer.load_backbone()
            worker = Worker(scorer, library)
            actions = scorer.head.metadata["actions"]
            service = Service(
                library,
                worker,
                head_name=scorer.head_path.name,
                targets=scorer.score_names,
                actions=actions if len(actions) > 1 else [],
                warnings=scorer.warnings,
                most_bytes=round(max_upload * 1e9),
            )
            worker.start()
            shown = f"[{host}]" if ":" in host else host
            print_message(f"open http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C stops; kept in {library.folder})")
            for warning in scorer.warnings:
                print_message(f"warning: {warning}")
            try:
                _Server(service, Guard(service.app(), host, token)).run(sockets=[listener])
            finally:
                worker.stop()
        finally:
            library.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot listen on {host}, port {port}: {reason}; name another with --host or --port"
        ) from None


class _Server(uvicorn.Server):
    """A server whose streams of events end when it should stop."""

    def __init__(self, service: Service, app: Guard) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="critical",  # faults have a handler of their own
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.is_stopping = True
        super().handle_exit(sig, frame)
