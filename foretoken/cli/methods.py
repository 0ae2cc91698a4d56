"""`foretoken methods`: what there is to choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foretoken.cli.command import grouped
from foretoken.cli.describe import URL, Description, describe_all
from foretoken.cli.output import print_json, stdout, write
from foretoken.errors import ConfigError
from foretoken.registry import METHODS

EXAMPLES = ("foretoken methods", "foretoken methods --json | python -m json.tool")
STATIONS = {
    "draft": "Drafters propose tokens (`--draft`).",
    "length": "Length policies decide, leaf by leaf, how deep a draft goes (`--length`).",
    "shape": "Tree shapes decide how wide a draft is (`--shape`).",
    "accept": "Acceptance rules decide which drafted tokens are kept (`--accept`).",
}


@grouped
def methods(
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/methods.md.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks.")] = False,
) -> None:
    """List drafters, length policies, tree shapes and acceptance rules."""
    if json and markdown:
        raise ConfigError("`--json` and `--markdown` cannot be combined", hint="choose one of them")
    found = describe_all()
    if json:
        print_json("methods/1", {"methods": [dataclasses.asdict(one) for one in found]})
    elif markdown:
        write(_page(found))
    else:
        for station, meaning in STATIONS.items():
            _show(meaning, [one for one in found if one.station == station])


def _show(meaning: str, found: list[Description]) -> None:
    """One station, for people: a name, and beside it what there is to know."""
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(style="bold cyan", min_width=10, no_wrap=True)
    table.add_column()
    for one in found:
        table.add_row(one.name, Group(*_facts(one)))
    console = stdout()
    console.print(Text(meaning.replace("`", ""), "bold"), Text(), table, sep="\n")


def _facts(one: Description) -> Iterator[RenderableType]:
    """What there is to know about one method, line by line."""
    yield Text(one.idea)
    if one.options:
        options = Table.grid(padding=(0, 2))
        for option in one.options:
            options.add_row(Text(f"{option.flag} {_typed(option.default)}"), Text(option.meaning, "dim"))
        yield options
    yield Text("; ".join(["lossless" if one.lossless else "LOSSY", *(f"needs {need}" for need in one.needs)]), "dim")
    yield Text("\n".join([*one.references, one.file, ""]), "dim")


def _page(found: list[Description]) -> str:
    """docs/methods.md."""
    sections = [
        "# Methods\n\nEverything registered in `foretoken/registry.py`, one file each. Any combination that fits is "
        "allowed, and one that does not is refused before a model is loaded. This page is written by "
        "`foretoken methods --markdown`.\n"
    ]
    for station in METHODS:
        here = [one for one in found if one.station == station]
        options = [(one, option) for one in here for option in one.options]
        sections.append(f"## `--{station}`\n\n{STATIONS[station]}\n")
        sections.append(_table(["name", "idea", "needs", "trained", "lossless", "reference", "file"], map(_row, here)))
        if options:
            rows = [[f"`{m.name}`", f"`{o.flag}`", f"`{_typed(o.default)}`", o.meaning] for m, o in options]
            sections.append(_table(["method", "option", "default", "meaning"], rows))
    return "\n".join(sections)


def _row(one: Description) -> list[str]:
    return [
        f"`{one.name}`",
        one.idea,
        ", ".join(one.needs) or "nothing",
        "yes" if one.trained else "no",
        "yes" if one.lossless else "**no**",
        "; ".join(_link(reference) for reference in one.references) or "-",
        f"[{one.file.rpartition('/')[2]}](../{one.file})",
    ]


def _link(reference: str) -> str:
    """Make the words before an address a link to it."""
    if not (found := URL.search(reference)):
        return reference
    return f"[{reference[: found.start()]}]({found[1]}){reference[found.end() :]}"


def _table(head: list[str], rows: Any) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _typed(value: Any) -> str:
    """A default as it would be typed."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
