"""Files that `foretoken bench` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from foretoken.cli.options import in_output
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.bench.run import Sample


@dataclass(frozen=True)
class BenchFiles:
    """What is written besides the table."""

    html: Annotated[str | None, in_output(metavar="FILE", help="Write a report with pictures.")] = None
    csv: Annotated[str | None, in_output(metavar="FILE", help="Write the table as CSV.")] = None
    plot: Annotated[str | None, in_output(metavar="FILE", help="Draw the speed-ups (.svg or .png).")] = None
    answers: Annotated[
        str | None, in_output(metavar="FOLDER", help="Write answers as Spec-Bench's scripts read them.")
    ] = None

    def named(self, ending: str) -> BenchFiles:
        """The same files with something added to their names: `report-16x.html`."""

        def name(place: str | None) -> str | None:
            path = Path(place or "")
            return place and str(path.with_name(f"{path.stem}-{ending}{path.suffix}"))

        return BenchFiles(*(name(getattr(self, field.name)) for field in fields(self)))

    def reserve(self) -> None:
        """Find out now, not after the run, whether everything can be written.

        Raises:
            ConfigError: a file cannot be written, or a library for it is missing.
        """
        from foretoken.bench.html import check_html
        from foretoken.bench.plot import check_plot

        if self.plot:
            check_plot(Path(self.plot))
        if self.html:
            check_html()
        for place in (self.html, self.csv, self.plot, self.answers):
            try:
                if place and place == self.answers:
                    Path(place).mkdir(parents=True, exist_ok=True)
                elif place:
                    Path(place).touch()
            except OSError as error:
                raise ConfigError(
                    f"cannot write `{place}`: {error.strerror}", hint="name a place in a folder you own"
                ) from error

    def write(self, record: Mapping[str, Any], samples: Sequence[Sample], decode: Callable[..., str]) -> None:
        """Write what was asked for.

        Args:
            record: the run's JSON object.
            samples: its samples.
            decode: token ids -> text.
        """
        from foretoken.bench.answers import write_answers
        from foretoken.bench.html import page
        from foretoken.bench.plot import plot_speed_ups
        from foretoken.bench.report import to_csv

        if self.html:
            Path(self.html).write_text(page(record), encoding="utf-8")
        if self.csv:
            Path(self.csv).write_text(to_csv(record["methods"], record["config"]["target"]), encoding="utf-8")
        if self.plot:
            plot_speed_ups(record["methods"], caption(record), Path(self.plot))
        if self.answers:
            write_answers(Path(self.answers), samples, record["prompts"], decode)


def caption(record: Mapping[str, Any]) -> str:
    """What was measured, and on what."""
    config, where = record["config"], record["hardware"]
    pair = f"{config['target']}, {config['dtype']}, temperature {config['sampling']['temperature']:g}, batch 1"
    machine = f"{where['gpu'] or where['cpu']}, threads: {where['threads']}"
    return f"{pair}, {record['num_prompts']} prompts, {record['date']}\n{machine}"
