"""Writes specs/09-limits.md from onionrelay/base/limits.py: `python -m tests.limits_chapter`. A test keeps them equal."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from onionrelay.base import limits

CHAPTER = Path(__file__).parent.parent / "specs" / "09-limits.md"

PREAMBLE = """\
# 9. Limits

Every number of the protocol and of this implementation, with its value and the reason for it. Sizes are in bytes, times
in seconds. This chapter is written from `onionrelay/base/limits.py` by `python -m tests.limits_chapter`; change a number
there, not here.

The first table is the specification: two programs that differ in it do not understand each other. The others are this
implementation's own. Another program may choose its own values there, but a peer can notice some of them (how fast it may
build circuits, how much it may queue, when silence ends a link), and a program with values of its own stands out from
the rest.
"""


def render() -> str:
    """The whole chapter."""
    source = Path(limits.__file__).read_text()
    return "\n".join([PREAMBLE.rstrip(), *(text for _, text in sorted([*headings(source), *rows(source)]))]) + "\n"


def headings(source: str) -> Iterator[tuple[int, str]]:
    """(line, markdown) of the comments that stand on a line of their own."""
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("# "):
            title, _, note = line.removeprefix("# ").partition(": ")
            name = title if title == "Specification" else note.capitalize()
            rest = f"\n\n{note[0].upper()}{note[1:]}." if title == "Specification" else ""
            yield number, f"\n## {name}{rest}\n\n| name | value | why |\n|---|---|---|"


def rows(source: str) -> Iterator[tuple[int, str]]:
    """(line, markdown) of each constant."""
    reasons = comments(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            last = node.end_lineno or node.lineno
            reason = " ".join(reasons[line] for line in range(node.lineno, last + 1) if line in reasons)
            found = getattr(limits, name)
            reason = reason.removeprefix(str(found)).removeprefix(", ").replace("|", "\\|")
            cells = name, value(found), reason
            yield node.lineno, f"| {' | '.join(cells)} |"


def comments(source: str) -> dict[int, str]:
    """The comment that ends each line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def value(found: object) -> str:
    """As a reader would write it: thousands apart, no trailing zeros."""
    match found:
        case tuple():
            return f"({', '.join(map(value, found))})"
        case int() | float():
            return f"{found:,.10g}" if isinstance(found, float) else f"{found:,}"
        case _:
            return f"`{found}`"


if __name__ == "__main__":
    CHAPTER.write_text(render())
