"""What is seen of a training: a bar with throughput and time left, and warnings about its checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from foretoken.cli.output import say, shows_progress, stderr

if TYPE_CHECKING:
    from foretoken.train.rounds import Progress as Tell


class Throughput(ProgressColumn):
    """Items per second, over the last while."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", "dim")


@contextmanager
def training_bar(quiet: bool) -> Iterator[Tell]:
    """A bar per stage while the block runs, if someone is watching; warnings are shown unless `quiet`."""
    handler = _Warnings()
    logger = logging.getLogger("foretoken.train")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    handler.quiet = quiet
    columns = (
        TextColumn("{task.description}", style="dim"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,} of {task.total:,}", style="dim"),
        Throughput(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=stderr(), disable=not shows_progress(quiet), refresh_per_second=2) as bar:
        tasks: dict[str, int] = {}

        def tell(stage: str, done: int, of: int, detail: str = "") -> None:
            if stage not in tasks:
                # What a resumed training finds done has no speed.
                tasks[stage] = bar.add_task(stage, total=of, completed=done, detail=detail)
            bar.update(tasks[stage], completed=done, total=of, detail=detail)  # type: ignore[arg-type]

        try:
            yield tell
        finally:
            logger.removeHandler(handler)
            logger.propagate = before


class _Warnings(logging.Handler):
    """Shows what the training logs as the command line shows warnings."""

    quiet = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.quiet:
            say("warning", record.getMessage())
