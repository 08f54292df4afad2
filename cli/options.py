"""What commands have in common: settings, `--json`, progress, and errors that say what to do."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from core.config import Settings
from core.errors import CitadelError

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
pass_settings = click.make_pass_decorator(Settings)
asker_option = click.option("--as", "subject", metavar="LABEL", help="Who asks the questions that name nobody.")
html_option = click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write it as one page.")
markdown_option = click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path),
                               help="Write it for a pull request.")  # fmt: skip
progress_option = click.option(
    "--progress/--no-progress", default=None, help="A bar on stderr.  [default: on a terminal]",
    callback=lambda ctx, param, value: sys.stderr.isatty() if value is None else value,
)  # fmt: skip


class CitadelGroup(click.Group):
    """A group that turns our errors into one line on standard error, and exit status 2 for what can be mended."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CitadelError as error:
            click.echo(f"citadel: {error}", err=True)
            sys.exit(2)


class LazyGroup(click.Group):
    """Loads what was asked for of the commands that are `elsewhere`, and all of them for the list of help."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._elsewhere = elsewhere  # name → module:command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._elsewhere[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


def show(value: Any, as_json_too: bool, text: str) -> None:
    """Print the value as JSON, or the text that a person would rather read."""
    click.echo(json.dumps(plain(value), ensure_ascii=False) if as_json_too else text)


def plain(value: Any) -> Any:
    """Records, ids and times as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns; `nothing` when there are none."""
    if not rows:
        return "nothing"
    cells = [list(rows[0])] + [["" if v is None else str(v) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def cutoffs_of(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """The callback of an option of cutoffs, ascending. Raises BadParameter."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 and int(part) > 0 for part in parts):
        raise click.BadParameter(f"write cutoffs from 1 to 9999 with commas between, such as 1,3,5,10; not {value!r}")
    return tuple(sorted({int(part) for part in parts}))
