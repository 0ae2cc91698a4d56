"""The console entry point: commands, errors and exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foretoken import __version__
from foretoken.cli import bench, chat, demo, doctor, generate, methods, train, train_draft, train_inside, train_pair
from foretoken.cli.command import Command, UsageError, usage_error
from foretoken.cli.help import Help, epilog
from foretoken.cli.output import say
from foretoken.errors import ConfigError, ForetokenError, did_you_mean


class Group(Help, TyperGroup):
    """The commands; turns whatever they raise into an error message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command:
            raise ConfigError(f"`{ctx.command_path}` needs a command", hint=did_you_mean("", self.commands))
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            raise usage_error(error, self, ctx, args) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise ConfigError(f"unknown command `{args[0]}`", hint=did_you_mean(args[0], self.commands))
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, *rest, **{"prog_name": "foretoken", **extra, "standalone_mode": False})
        except (typer.Abort, KeyboardInterrupt):
            code = 130
        except Exception as error:
            code = _report(error, debug="--debug" in words)
        sys.exit(code or 0)


def _report(error: Exception, *, debug: bool) -> int:
    """Print what went wrong, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, ForetokenError):
        say("error", str(error), error.hint)
        return error.exit_code
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    say("error", f"unexpected {what}", "this is a bug in foretoken; `--debug` shows where it happened")
    return 1


app = typer.Typer(
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=epilog(("foretoken demo", generate.EXAMPLES[0])))
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Lossless speculative decoding: the target model's own output, sooner."""
    if version:
        typer.echo(f"foretoken {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command(cls=Command, epilog=epilog(generate.EXAMPLES))(generate.generate)
app.command(cls=Command, epilog=epilog(chat.EXAMPLES))(chat.chat)
app.command(cls=Command, epilog=epilog(demo.EXAMPLES))(demo.demo)
app.command(cls=Command, epilog=epilog(doctor.EXAMPLES))(doctor.doctor)
app.command(cls=Command, epilog=epilog(bench.EXAMPLES))(bench.bench)
app.command(cls=Command, epilog=epilog(methods.EXAMPLES))(methods.methods)
training = typer.Typer(cls=Group, rich_markup_mode=None, help="Train what has to be trained before it helps.")
training.command("acceptance-head", cls=Command, epilog=epilog(train.HEAD_EXAMPLES))(train.acceptance_head)
training.command("disco", cls=Command, epilog=epilog(train.DISCO_EXAMPLES))(train.disco)
training.command("pair", cls=Command, epilog=epilog(train_pair.EXAMPLES))(train_pair.pair)
training.command("draft", cls=Command, epilog=epilog(train_draft.EXAMPLES))(train_draft.draft)
training.command("blockwise", cls=Command, epilog=epilog(train_inside.BLOCKWISE_EXAMPLES))(train_inside.blockwise)
training.command("falcon", cls=Command, epilog=epilog(train_inside.FALCON_EXAMPLES))(train_inside.falcon)
training.command("pass", cls=Command, epilog=epilog(train_inside.PASS_EXAMPLES))(train_inside.lookahead)
app.add_typer(training, name="train", epilog=epilog((train.HEAD_EXAMPLES[0], train.DISCO_EXAMPLES[0])))


def main() -> None:
    """Run the command line."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - it is closed for `<&-` and under some services
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    app()
