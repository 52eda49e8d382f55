"""The tables that benchmarks print."""

from collections.abc import Sequence

from cofinal.pipeline.console import out


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    lines.insert(1, "|---" * len(columns) + "|")
    out.print("\n".join(lines) + "\n", markup=False)
