"""What the documents say is so: commands and options exist, examples compile, links lead somewhere, tables agree."""

import ast
import inspect
import os
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import onionrelay
from onionrelay.apps.cli import cli
from onionrelay.apps.exit_codes import MEANING
from onionrelay.apps.settings import Settings
from onionrelay.base import limits
from tests.limits_chapter import CHAPTER, render

ROOT = Path(__file__).parent.parent
SPECS = ROOT / "specs"
CHAPTERS = sorted(SPECS.glob("[0-9]*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(SPECS.glob("*.md"))]
SOURCES = sorted((ROOT / "onionrelay").rglob("*.py"))
README = (ROOT / "README.md").read_text()

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?onionrelay [^`]+)`")
COMMAND = re.compile(r"""(?:^|[\s'"/])onionrelay(?= [a-z-])([^'"#|;&\n]*)""", re.MULTILINE)
CHAPTER_NAMED = re.compile(r'specs/(\d\d[a-z]?(?:-[\w-]+\.md)?)(?:, "([^"]+)")?')


def fences(text: str, language: str | None = None) -> Iterator[str]:
    return (body for name, body in FENCE.findall(text) if language in (None, name))


def commands(text: str) -> Iterator[str]:
    return (re.split(r"\. |[.:,]$", found.strip())[0] for found in COMMAND.findall(text))


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def check_command(line: str, *, whole: bool) -> None:
    """`line` without the program's name. `whole`: nothing that the command requires may be missing."""
    command: click.Command = cli
    words = [word for word in shlex.split(line) if word != "--help"]
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, f"there is no command {words[0]!r} in {command.name}"
        command = command.commands[words.pop(0)]
    if not words and not whole:
        return
    try:
        command.make_context(command.name, words, obj=Settings())
    except click.MissingParameter:
        assert not whole


MENTIONED = {
    *((line, True) for document in DOCUMENTS for body in fences(document.read_text()) for line in commands(body)),
    *(
        (line, False)
        for path in [*DOCUMENTS, *SOURCES]
        for code in INLINE.findall(path.read_text())
        for line in commands(code)
    ),
    *((line, False) for _, command in walk(cli) for line in commands(inspect.cleandoc(command.help or ""))),
    *((line, False) for line in commands(inspect.cleandoc(cli.help or ""))),
}


@pytest.mark.parametrize(("line", "whole"), sorted(MENTIONED))
def test_every_command_that_is_mentioned_exists_with_its_options(line, whole):
    check_command(line, whole=whole)


@pytest.mark.parametrize("line", ["relay unit", "relay init --lisen tls://9.9.9.9:1", "network new", "frobnicate"])
def test_a_wrong_command_would_be_noticed(line):
    with pytest.raises((AssertionError, click.UsageError)):
        check_command(line, whole=True)


def test_the_readme_mentions_every_command():
    for name, _ in walk(cli):
        assert f"onionrelay {name}" in README


def test_the_readmes_first_lines_are_the_demo_and_what_ci_runs():
    demo, check = next(fences(README, "sh")).splitlines()
    assert demo == "./setup && .venv/bin/onionrelay demo"
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == f"exec {check}"
    for script in ("setup", "check", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)


def test_the_readme_shows_a_demo_session():
    shown = README.partition("<!-- demo session -->")[2].partition("<!-- end of demo session -->")[0]
    assert any("onionrelay demo" in body for body in fences(shown))


def test_python_examples_compile_and_name_what_there_is():
    examples = [body for document in DOCUMENTS for body in fences(document.read_text(), "python")]
    assert any("open_connection" in example for example in examples)
    for example in examples:
        tree = ast.parse("async def example():\n" + textwrap.indent(example, "    "))
        compile(tree, "example", "exec")
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                check_call(call.func.value.id, call.func.attr, call)


def check_call(owner: str, name: str, call: ast.Call) -> None:
    """`onionrelay.X(...)` and `node.x(...)` exist and take these arguments."""
    holder = {"onionrelay": onionrelay, "node": onionrelay.Node}.get(owner)
    if holder is not None:
        signature = inspect.signature(getattr(holder, name))
        arguments = [None] * (len(call.args) + (holder is onionrelay.Node))
        signature.bind_partial(*arguments, **{keyword.arg: None for keyword in call.keywords})


@pytest.mark.parametrize("example", ["onionrelay.Knot()", "node.open_conection(1, 2)", "node.connect(1, prot=80)"])
def test_a_wrong_example_would_be_noticed(example):
    call = ast.parse(example, mode="eval").body
    with pytest.raises((AttributeError, TypeError)):
        check_call(call.func.value.id, call.func.attr, call)


def test_names_of_the_library_in_documents_exist():
    for document in DOCUMENTS:
        for name in re.findall(r"`onionrelay\.([A-Z]\w+)", document.read_text()):
            assert hasattr(onionrelay, name), f"{document.name}: onionrelay.{name}"


def test_the_exit_codes_are_the_programs():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANING.items()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for link in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), link


def test_every_chapter_is_in_the_index_under_its_title():
    index = (SPECS / "README.md").read_text()
    listed = re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", index, re.MULTILINE)
    assert listed == sorted(listed, key=lambda row: row[1])
    assert [name for _, name in listed] == [chapter.name for chapter in CHAPTERS]
    for title, name in listed:
        assert (SPECS / name).read_text().startswith(f"# {title}\n")


def test_chapters_and_sections_that_are_named_exist():
    headings = {
        chapter.name: ["", *re.findall(r"^#+ (.+)$", chapter.read_text(), re.MULTILINE)] for chapter in CHAPTERS
    }
    missing = [
        (str(path.relative_to(ROOT)), name, section)
        for path in [*SOURCES, *DOCUMENTS, *sorted((ROOT / "tests").rglob("*.py"))]
        for name, section in CHAPTER_NAMED.findall(" ".join(path.read_text().split()))
        if not any(
            chapter.startswith(name) and any(heading.endswith(section) for heading in found)
            for chapter, found in headings.items()
        )
    ]
    assert missing == []


def test_each_term_is_defined_once():
    terms = re.findall(r"^\*\*(.+?)\*\* — ", (SPECS / "00-terms.md").read_text(), re.MULTILINE)
    assert [term for term, times in Counter(terms).items() if times > 1] == []
    assert (SPECS / "00-terms.md").read_text().count("**") == 2 * len(terms)
    wanted = {
        *("node", "relay", "guard", "vanguard", "middle", "final hop", "target", "link", "channel", "circuit", "hop"),
        *("cell", "layer", "build", "build record", "attachment", "handle", "voucher", "ticket", "reach record"),
        *(
            "session",
            "stream",
            "session packet",
            "frame",
            "relay table",
            "descriptor",
            "circuit side",
            "endpoint",
            "end",
        ),
    }
    assert wanted <= set(terms)


def test_the_chapter_on_limits_is_written_from_the_code():
    assert CHAPTER.read_text() == render(), "run: python -m tests.limits_chapter"
    for name in (name for name in vars(limits) if name.isupper()):
        assert f"\n| {name} | " in CHAPTER.read_text()
