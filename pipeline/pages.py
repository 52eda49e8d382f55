"""What all HTML pages share: templates that escape everything from outside, and a policy that no name can break."""

import base64
import hashlib
import re
from functools import cache
from html import unescape
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .console import format_span


def render(template: str, **values: Any) -> str:
    """Return a page. Texts in the values are escaped."""
    return _environment().get_template(template).render(**values)


def script(name: str) -> Markup:
    """Return one of this package's own scripts, to be put into a page as it is."""
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def policy(code: str = "", *, served: bool = False) -> str:
    """Return the content security policy of a page: nothing is fetched, and no script runs but this one.

    Args:
        code: the script.
        served: the page comes from serve-scores, and may fetch from it and send to it.
    """
    allowed = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'self'" if served else "form-action 'none'",
    ]
    if code:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        allowed.append(f"script-src 'sha256-{digest}'")
    if served:
        allowed += ["media-src 'self'", "connect-src 'self'"]
    return "; ".join(allowed)


def stated_policy(page: str) -> str:
    """Return the policy that a page was made with; a later version of this program may have other scripts."""
    found = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found, "every page has a policy"
    return unescape(found[1])


def format_time(seconds: float) -> str:
    """Return a time in a video: `12.8 s`, `2:05.3`."""
    tenths = round(10 * seconds)
    return f"{tenths / 10:.1f} s" if tenths < 600 else f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cofinal.pipeline", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["zip"] = zip
    environment.filters |= {
        "n": lambda x: f"{x:.2f}".rstrip("0").rstrip("."),
        "span": format_span,
        "time": format_time,
        "url": lambda path: quote(path, errors="surrogateescape"),
    }
    return environment
