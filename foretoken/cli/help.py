"""The text of `--help`: options under headings, then examples as they are typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 100  # of the terminal, at most
COLUMN = 30  # of the option names, at most


def epilog(examples: Sequence[str]) -> str:
    """How examples are handed to typer, to be laid out by `Help`."""
    return "\n".join(examples)


class Help:
    """A mixin for typer's commands and groups: plain help, the same at a terminal and in a file."""

    params: list[Any]
    epilog: str | None

    def make_context(self, *args: Any, **extra: Any) -> Any:
        return super().make_context(*args, **{"max_content_width": WIDTH, **extra})  # type: ignore[misc]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options under the heading of their panel, in the order of the function's parameters."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.params:
            if not getattr(param, "hidden", False):
                argument = param.param_type_name == "argument"
                heading = "Arguments" if argument else param.rich_help_panel or "Options"
                panels.setdefault(heading, []).append((_names(param), _meaning(param)))
        panels.setdefault("Options", []).append((", ".join(ctx.help_option_names), "Show this help."))
        for heading, rows in panels.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=COLUMN)
        if commands := getattr(self, "commands", None):
            with formatter.section("Commands"):
                formatter.write_dl(
                    [(name, (command.help or "").partition("\n")[0]) for name, command in commands.items()]
                )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, never wrapped, so that they can be copied."""
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in (self.epilog or "").splitlines()))


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.name).upper()
    names = ", ".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {param.metavar or param.name.upper()}"


def _meaning(param: Any) -> str:
    shown = param.show_default and param.default is not False and param.default not in (None, [], ())
    return f"{param.help} (default: {param.default})" if shown else str(param.help)
