"""The configuration and the recipe of a head from the user's options: `--grades`, `--epochs`, `--set NAME=VALUE`."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from ..data.labels import LabelSet
from ..data.target_rules import find_name, parse_grade_edges
from ..models.head import HeadConfig, Recipe
from ..models.head_types import HEAD_TYPES
from .options import TrainingOptions
from .trainings import ConfigFactory

OF_DATASET = {field.name for field in fields(HeadConfig)} - {"num_grades", "num_subgrades"} | {"grade_edges"}
"""Fields of a configuration that the dataset decides, or the user for a target of it."""


def configure(options: TrainingOptions) -> tuple[ConfigFactory, Recipe]:
    """Return what makes the head's configuration, and its recipe.

    Raises:
        ValueError: the head type or a setting is unknown, or a value is not of the setting's type.
    """
    if options.head_type not in HEAD_TYPES:
        raise ValueError(f"unknown head type {options.head_type!r}; known are {', '.join(HEAD_TYPES)}")
    head_type = HEAD_TYPES[options.head_type]
    types: dict[str, Any] = {
        field.name: field.type
        for kind in (head_type.config, head_type.recipe)
        for field in fields(kind)
        if field.name not in OF_DATASET
    }
    if options.grade_edges and "grade_edges" not in {field.name for field in fields(head_type.config)}:
        raise ValueError(f"the grades of {options.head_type} are those of its paper; leave --grade-edges out")
    settings = _parse(options.settings or (), types)
    named = {
        "num_grades": options.grades,
        "num_subgrades": options.subgrades,
        "epochs": options.epochs,
        "learning_rate": options.lr,
    }
    named = {name: value for name, value in named.items() if value is not None}
    if twice := settings.keys() & named.keys():
        raise ValueError(f"{', '.join(sorted(twice))} is set twice, by --set and by its own option; leave one out")
    settings |= named
    of_recipe = {field.name for field in fields(head_type.recipe)}
    recipe = replace(head_type.recipe(), **{name: settings[name] for name in settings if name in of_recipe})  # type: ignore[call-arg]
    config = {name: value for name, value in settings.items() if name not in of_recipe}
    # a configuration that cannot be is an error now, not after hours of extraction
    head_type.config(feature_dim=1, targets=("any",), ranges=((0, 1),), **config)
    return partial(head_type.config, **config), recipe


def with_grade_edges(make_config: ConfigFactory, options: TrainingOptions, labels: LabelSet) -> ConfigFactory:
    """Return what makes the configuration with the edges of grades that the user gives.

    Raises:
        ValueError: the edges are not understood, their target or its range is unknown, they lie outside of the range,
            or their number does not fit.
    """
    if not options.grade_edges:
        return make_config
    edges: dict[str, tuple[float, ...]] = {}
    for text in options.grade_edges:
        name, points = parse_grade_edges(text)
        target = find_name(name, labels.targets)
        if target is None:
            raise ValueError(f"--grade-edges {text!r}: unknown target {name!r}; known are {', '.join(labels.targets)}")
        if target not in labels.ranges:
            raise ValueError(
                f"--grade-edges {text!r} needs the lowest and highest possible {target}: add --range {target}=LOW:HIGH"
            )
        low, high = labels.ranges[target]
        if not low < points[0] <= points[-1] < high:
            raise ValueError(f"--grade-edges {text!r} must lie between {low:g} and {high:g}, the range of {target}")
        edges[target] = points
    grades = {len(points) + 1 for points in edges.values()} | ({options.grades} if options.grades else set())
    if len(grades) > 1:
        numbers = " and ".join(map(str, sorted(grades)))
        raise ValueError(f"all targets of a head have as many grades, and --grade-edges and --grades say {numbers}")
    return partial(
        make_config, num_grades=grades.pop(), grade_edges=tuple(edges.get(target, ()) for target in labels.targets)
    )


def _parse(texts: Sequence[str], types: dict[str, Any]) -> dict[str, Any]:
    """Return the values of NAME=VALUE texts, each of its setting's type."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in types:
            raise ValueError(f"unknown setting {text!r}; --set NAME=VALUE takes {', '.join(sorted(types))}")
        try:
            settings[name] = {"true": True, "false": False}[value] if types[name] is bool else types[name](value)
            if isinstance(settings[name], float) and not math.isfinite(settings[name]):
                raise ValueError("neither NaN nor infinity is a setting")
        except (ValueError, KeyError):
            expected = {bool: "true or false", int: "a whole number", float: "a number"}[types[name]]
            raise ValueError(f"--set {text}: {name} is {expected}") from None
    return settings
