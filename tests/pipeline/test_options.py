"""One dataclass of options serves the console commands and the Python functions."""

import inspect
from dataclasses import dataclass, fields
from typing import Annotated

import pytest

from cofinal import extract_features, score_video
from cofinal.pipeline.options import ExtractorOptions, Option, takes_fields_of


@dataclass(frozen=True, kw_only=True)
class Size:
    """Options for the tests."""

    width: Annotated[int, Option("Pixels across.")] = 3
    height: Annotated[int, Option("Pixels down.")] = 2


@takes_fields_of(Size)
def area(name: str, *, size: Size, unit: str = "px") -> str:
    """Say how large a thing of this size is."""
    return f"{name}: {size.width * size.height} {unit}"


def test_fields_are_keyword_arguments() -> None:
    assert area("a") == "a: 6 px"
    assert area("a", height=5, unit="cm") == "a: 15 cm"
    with pytest.raises(TypeError, match="depth"):
        area("a", depth=5)
    with pytest.raises(TypeError, match="name"):
        area(width=1)


def test_signature_shows_the_fields_with_their_help() -> None:
    assert list(inspect.signature(area).parameters) == ["name", "width", "height", "unit"]
    assert "width: Annotated[int, 'Pixels across.'] = 3" in str(inspect.signature(area)).replace("typing.", "")
    assert area.__doc__ == "Say how large a thing of this size is."


@pytest.mark.parametrize("function", [extract_features, score_video])
def test_the_functions_take_every_extractor_option(function) -> None:
    assert {field.name for field in fields(ExtractorOptions)} < set(inspect.signature(function).parameters)


def test_the_commands_show_every_extractor_option(command) -> None:
    for name in ("extract-features", "score-video"):
        ended = command(name, "--help")
        for field in fields(ExtractorOptions):
            assert f"--{field.name.replace('_', '-')} " in ended.out


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"decoder": "vlc"}, "unknown decoder"),
        ({"stall_timeout": 0.0}, "stall-timeout must be more than 0"),
        ({"max_pixels": 0}, "max-pixels must be at least 1"),
        ({"max_duration": -1.0}, "max-duration must be more than 0"),
    ],
)
def test_bad_options_are_refused(bad: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExtractorOptions(**bad)
