"""Who may talk to the server: a check of every request before anything else sees it."""

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..pages import policy, render
from .uploads import TooLargeError, read_body

COOKIE = "cofinal-serve-scores"
WRONG_TOKEN_DELAY_S = 1.0
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not set them itself."""


class Guard:
    """Refuses requests for another host, from another site, and without the token.

    A page elsewhere can make a browser send requests here. If its own name leads to this machine (DNS rebinding), the
    Host header still has that name. A post by another site is told by Sec-Fetch-Site, or else by Origin.

    Args:
        app: what the requests are for.
        host: the address that the server listens on.
        token: what users give once, and programs with each request as `Authorization: Bearer TOKEN`; None for none.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self._app, self._token = app, token
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._is_local = is_local(host)
        if not self._is_local:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        answer = self._refusal(request)
        if answer is None and self._token is not None:
            answer = await self._ask_for_token(request, self._token)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (answer or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if not self._is_own(request.headers.get("host", "")):
            return PlainTextResponse("this server does not answer to that Host\n", 400)
        if request.method not in ("GET", "HEAD") and is_cross_site(request.headers):
            return PlainTextResponse("requests of other sites are refused\n", 403)
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or (not self._is_local and is_address(name))  # no name, so no DNS rebinding

    async def _ask_for_token(self, request: Request, token: str) -> Response | None:
        """Return the page that asks for the token, unless the request has it."""
        session = hashlib.sha256(f"session of {token}".encode()).hexdigest()
        if request.method == "POST" and request.url.path == "/token":
            try:
                fields = parse_qs((await read_body(request.stream(), 4096)).decode("utf-8", "replace"))
            except TooLargeError:
                fields = {}
            if same(fields.get("token", [""])[0], token):
                answer = RedirectResponse("/", 303)
                answer.set_cookie(COOKIE, session, httponly=True, samesite="strict")
                return answer
            await asyncio.sleep(WRONG_TOKEN_DELAY_S)
            return _token_page("That is not the token.")
        given = request.headers.get("authorization", "")
        if same(given, f"Bearer {token}") or same(_cookie(request.headers), session):
            return None
        return _token_page()


def is_address(name: str) -> bool:
    """Return whether a host is given as an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sent a request for a page of another site. Programs send neither header."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site != "same-origin"
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def same(given: str, right: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _token_page(wrong: str = "") -> Response:
    rules = policy(served=True)
    return HTMLResponse(
        render("token.html.j2", policy=rules, wrong=wrong), 401, {"Content-Security-Policy": rules + FRAMES}
    )


FRAMES = "; frame-ancestors 'none'"
"""For the header; a policy inside a page cannot say it."""
