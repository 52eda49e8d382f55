"""A real S3 server (moto's) in this process, which can cut downloads short and notes every request."""

import threading
from collections.abc import Callable, Iterator
from urllib.request import Request, urlopen

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class QuietHandler(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


class S3Server:
    """The server; `with` starts and stops it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.cuts: dict[str, int] = {}
        """How many downloads of a path are still to be cut short."""
        self.on_download: Callable[[str], None] = lambda path: None
        """Called with the path of each object before it is downloaded."""
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=QuietHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "S3Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST")).close()  # the next server finds nothing
        self._server.shutdown()

    def _serve(self, environ: dict, start_response: Callable) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if method != "GET" or environ.get("QUERY_STRING"):
            return self._app(environ, start_response)
        self.on_download(path)
        content = b"".join(self._app(environ, start_response))
        if self.cuts.get(path):
            self.cuts[path] -= 1
            content = content[: len(content) // 2]  # the header says the whole length
        return iter([content])
