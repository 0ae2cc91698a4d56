"""Typer, with dataclasses as groups of options, options by station, and errors that say what to do."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from foretoken.cli.help import Help
from foretoken.errors import ConfigError
from foretoken.registry import METHODS

# typer brings its own copy of click since 0.25 or so and used the real one before; this is either's.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
TYPES = {"integer": "a whole number", "float": "a number", "number": "a number"}  # what click calls them, and we
QUOTED = re.compile(r"'(--?[\w.-]+)'")  # an option, as click writes it
EXTRA = re.compile(r"extra argument.*\((.+)\)", re.DOTALL)
STATION_OPTION = re.compile(rf"--({'|'.join(METHODS)})\.([^=]+)(?:=(.*))?", re.DOTALL)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let each dataclass parameter of a command stand for the options that its fields describe."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _fields(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in dataclasses.fields(kind)})
        command(**values)

    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what `inspect` looks for
    return flat


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name], default=_default(f))
        for f in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


class Command(Help, TyperCommand):
    """A command whose methods take options of their own, written `--STATION.NAME VALUE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, station_options(args))
        except UsageError as error:
            raise usage_error(error, self, ctx, args) from error


def station_options(args: list[str]) -> list[str]:
    """Rewrite `--length.k 3` as `--option length.k=3`, which typer knows.

    Example:
        >>> station_options(["Hi", "--length.k", "3"])
        ['Hi', '--option', 'length.k=3']
    """
    rest = iter(args)
    result: list[str] = []
    for arg in rest:
        if arg == "--":
            return [*result, arg, *rest]
        if match := STATION_OPTION.fullmatch(arg):
            station, name, value = match.groups()
            value = next(rest, None) if value is None else value
            if value is None:
                raise ConfigError(f"option `{arg}` needs a value", hint=f"write `{arg} VALUE`")
            result += ["--option", f"{station}.{name}={value}"]
        else:
            result.append(arg)
    return result


def usage_error(error: Any, command: Any, ctx: Any, args: list[str]) -> ConfigError:
    """A usage error of click in our words.

    Args:
        error: what click found.
        command: whose usage it is.
        ctx: click's context, which knows how the command was called.
        args: what was typed behind the command.
    """
    help_hint = f"`{ctx.command_path} --help` shows what it takes"
    takes_prompt = any(param.param_type_name == "argument" for param in command.params)
    if hasattr(error, "possibilities"):  # only an unknown option has them
        options = [param for param in command.params if not getattr(param, "hidden", False)]
        known = {"--help", *(name for option in options for name in (*option.opts, *option.secondary_opts))}
        # Of `-abc` click names `-a`.
        word = next((arg for arg in args if arg.startswith(error.option_name)), error.option_name).partition("=")[0]
        if guess := _closest(word, known):
            return ConfigError(f"unknown option `{word}`", hint=f"did you mean `{guess}`?")
        dash = takes_prompt and (not word.startswith("--") or " " in word)
        hint = "put `--` before a prompt that starts with a dash" if dash else help_hint
        return ConfigError(f"unknown option `{word}`", hint=hint)
    message = error.format_message().rstrip(".")
    if extra := EXTRA.search(message):
        quotes = "options go before `--`" if "--" in args else "put the prompt in quotes"
        hint = quotes if takes_prompt else help_hint
        return ConfigError(f"unexpected argument `{extra[1]}`", hint=hint)
    names = list(getattr(getattr(error, "param", None), "opts", []))
    words = next((words for name, words in TYPES.items() if f"valid {name}" in message), None)
    if words and (value := _given(names, args)) is not None:
        return ConfigError(f"option `{names[0]}` cannot be {value!r}", hint=f"it takes {words}")
    message = QUOTED.sub(r"`\1`", message)
    return ConfigError(message[:1].lower() + message[1:], hint=help_hint)


def _given(names: list[str], args: list[str]) -> str | None:
    """The value typed for an option, the last one if there are several."""
    value = None
    for at, arg in enumerate(args):
        name, equals, rest = arg.partition("=")
        if name in names:
            value = rest if equals else next(iter(args[at + 1 :]), None)
    return value


def _closest(word: str, known: Iterable[str]) -> str | None:
    """The option that was probably meant, also where the station of `--STATION.NAME` is misspelled."""
    station, dot, name = word.partition(".")
    candidates = [f"--{known}" for known in METHODS] if dot else known
    close = difflib.get_close_matches(station, candidates, n=1)
    return close[0] + dot + name if close else None
