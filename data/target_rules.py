"""What users say of targets on the command line: a range, a panel of judges, a sum of other targets."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .numbers import read_number


@dataclass(frozen=True)
class Formula:
    """A score that is a sum of others, such as Total = Difficulty + Execution - Penalty."""

    target: str
    terms: tuple[tuple[int, str], ...]
    """Sign (1 or -1) and name of each part, in order."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the scores that it adds up."""
        return tuple(name for _, name in self.terms)

    def value(self, scores: Mapping[str, float]) -> float:
        """Return the sum for the scores of one routine."""
        return sum(sign * scores[name] for sign, name in self.terms)

    def __str__(self) -> str:
        (first_sign, first), *others = self.terms
        text = first if first_sign > 0 else f"-{first}"
        return f"{self.target} = {text}" + "".join(f" {'+' if sign > 0 else '-'} {name}" for sign, name in others)


def find_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is meant: the same one, or the only one that differs in upper and lower case."""
    known = list(known)
    if name in known:
        return name
    alike = [other for other in known if other.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def split_rule(text: str, option: str, example: str) -> tuple[str, str]:
    """Split `TARGET=RULE`.

    Args:
        text: what the user wrote.
        option: the option's name, for the message.
        example: a right value, for the message.

    Raises:
        ValueError: one of the two is missing.
    """
    target, _, rule = (part.strip() for part in text.partition("="))
    if not target or not rule:
        raise ValueError(f"{option} {text!r} is not understood; write it like {example}")
    return target, rule


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """Parse `TARGET=LOW:HIGH`, such as `Final=0:30`.

    Raises:
        ValueError: the text has another form, or the range is empty.
    """
    target, rule = split_rule(text, "--range", "Final=0:30")
    bounds = [read_number(bound) for bound in rule.split(":")]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None or bounds[0] >= bounds[1]:
        raise ValueError(f"--range {text!r} is not a lowest and a highest score; write it like Final=0:30")
    return target, (bounds[0], bounds[1])


def parse_grade_edges(text: str) -> tuple[str, tuple[float, ...]]:
    """Parse `TARGET=POINTS,POINTS,...`, such as `Final=10,20,25`.

    Raises:
        ValueError: the text has another form, or the points do not ascend.
    """
    target, rule = split_rule(text, "--grade-edges", "Final=10,20,25")
    points = [read_number(point) for point in rule.split(",")]
    edges = tuple(point for point in points if point is not None)
    if len(edges) < len(points) or list(edges) != sorted(set(edges)):
        raise ValueError(f"--grade-edges {text!r} is not a list of ascending scores; write it like Final=10,20,25")
    return target, edges


def parse_panel(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse `TARGET=JUDGE,JUDGE,...`, such as `Execution=E1,E2,E3,E4`; the judges are names of columns.

    Raises:
        ValueError: the text has another form, names one judge only, or names a judge twice.
    """
    target, rule = split_rule(text, "--panel", "Execution=E1,E2,E3,E4")
    judges = tuple(name.strip() for name in rule.split(","))
    if len(judges) < 2 or "" in judges or len(set(judges)) < len(judges):
        raise ValueError(f"--panel {text!r} does not name two or more judges; write it like Execution=E1,E2,E3,E4")
    return target, judges


def parse_sum(text: str, names: Collection[str]) -> Formula:
    """Parse `TARGET=PART+PART-PART`.

    Args:
        text: what the user wrote.
        names: the scores that may be parts; names may themselves hold + and -.

    Raises:
        ValueError: the text has another form, or a part is not one of the names.
    """
    target, rule = split_rule(text, "--sum", "Total=Difficulty+Execution-Penalty")
    longest_first = sorted(names, key=len, reverse=True)
    name = "|".join(map(re.escape, longest_first)) or r"(?!)"
    term = re.compile(rf"\s*([+-]?)\s*({name})\s*(?=[+-]|$)", re.IGNORECASE)
    terms: list[tuple[int, str]] = []
    position = 0
    while position < len(rule):
        found = term.match(rule, position)
        if found is None or (terms and not found[1]):
            raise ValueError(
                f"--sum {text!r} is not understood from {rule[position:].strip()!r} on; "
                f"its parts may be {', '.join(names) or 'none'}, joined by + and -"
            )
        part = find_name(found[2], names)
        assert part is not None, "the pattern is made of these names"
        terms.append((-1 if found[1] == "-" else 1, part))
        position = found.end()
    formula = Formula(target, tuple(terms))
    if target in formula.parts or len(set(formula.parts)) < len(terms):
        raise ValueError(f"--sum {text!r} names a score twice; each part may stand in it once")
    return formula
