"""What all verbs have in common: an example in their help, and --debug."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Command = Any
"""A function that click decorates, or what has become of it."""


def together(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator for several, the first outermost."""

    def decorate(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


class Verb(click.Command):
    """A command with examples below its description, and an option that shows where errors come from.

    Args:
        examples: Lines that can be pasted into a shell.
    """

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:  # noqa: ANN401 (click's own)
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(debug_option())

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description, and the examples as they are."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


def folder_for(sources: Sequence[str], *parts: str, verb: str = "") -> Path:
    """Where results go that were given no folder: it is called after the data's files or folders, and other words."""
    paths = [Path(source).expanduser() for source in sources]
    names = [path.stem or path.resolve().stem for path in paths]
    return Path("runs") / re.sub(r"[^\w.-]+", "-", "-".join(filter(None, [verb, *names, *parts])))


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """A section of lines that are not folded."""
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def debug_option() -> click.Option:
    """``--debug``, before a verb or after it."""
    text = "On an error, also show where in the program it came up."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=_remember, help=text)


def plugin_option(command: Command) -> Command:
    """``--plugin`` for a verb that builds networks or looks for channels."""
    return click.option(
        "--plugin",
        multiple=True,
        metavar="FILE.py",
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="First run this Python file of yours, which may register architectures, diversity terms, methods, "
        "strategies, data sources and formats. Repeatable.",
    )(command)


def _load(_: click.Context, __: click.Parameter, files: tuple[str, ...]) -> None:
    from structured_ensembles import plugins

    for file in files:
        plugins.load(file)


def _remember(ctx: click.Context, _: click.Parameter, value: object) -> None:
    ctx.meta["debug"] = bool(value) or ctx.meta.get("debug", False)
