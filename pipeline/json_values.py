"""Dataclasses to JSON and back."""

import dataclasses
import types
import typing
from typing import Any


def without_none(value: Any) -> Any:
    """Return a value without the entries of dictionaries that are None, at any depth."""
    if isinstance(value, dict):
        return {key: without_none(x) for key, x in value.items() if x is not None}
    return [without_none(x) for x in value] if isinstance(value, list) else value


def from_json(kind: Any, value: Any) -> Any:
    """Return the value of a type whose fields' types say what each part of the JSON is; absent fields are None.

    Raises:
        TypeError, ValueError: the JSON is of another form.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        _require(isinstance(value, dict), kind, value)
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        return typing.cast(type, kind)(**{name: from_json(hints[name], value.get(name)) for name in names})
    if origin in (typing.Union, types.UnionType):  # X | None
        return None if value is None else from_json(arguments[0], value)
    if kind is Any:
        return value
    if origin is dict:
        _require(isinstance(value, dict), kind, value)
        return {key: from_json(arguments[1], x) for key, x in value.items()}
    if origin is list:
        _require(isinstance(value, list), kind, value)
        return [from_json(arguments[0], x) for x in value]
    if origin is tuple:
        _require(isinstance(value, list), kind, value)
        return tuple(from_json(part, x) for part, x in zip(arguments, value, strict=True))
    if kind is float and type(value) is int:
        return float(value)
    _require(type(value) is kind, kind, value)
    return value


def _require(fits: bool, kind: Any, value: Any) -> None:
    if not fits:
        raise TypeError(f"expected {kind}, found {value!r:.100}")
