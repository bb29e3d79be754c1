"""The command `structens`: its verbs, and what becomes of errors."""

from __future__ import annotations

import errno
import os
import traceback
from typing import Any

import click

from structured_ensembles.cli.stopping import Terminated, stoppable
from structured_ensembles.cli.verb import debug_option, write_examples
from structured_ensembles.errors import SettingsError, StructensError
from structured_ensembles.options.catalogue import VERBS

_INTERRUPTED, _TERMINATED = 130, 143
"""Exit statuses, as shells count them: 128 and the signal."""
_REFUSED = tuple(
    getattr(errno, name)
    for name in ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EISDIR", "ENOTDIR", "EIO", "ENAMETOOLONG", "EFBIG"]
    if hasattr(errno, name)
)
"""What the system says where a disk is full, read-only or another's: no bug of ours."""


class _Mistake(click.ClickException):
    """A user's mistake, on one line."""

    exit_code = 2

    def __init__(self, error: StructensError) -> None:
        super().__init__(" ".join(str(error).split()))


class _Structens(click.Group):
    """The verbs of the catalogue, each imported when it is called: its options take time to describe."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        try:
            verb: click.Command = VERBS[cmd_name]
        except SettingsError as error:
            ctx.fail(str(error))
        return verb

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS.about(name)) for name in VERBS])

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        write_examples(_EXAMPLES, formatter)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        try:
            with stoppable():
                return super().invoke(ctx)
        except StructensError as error:
            if ctx.meta.get("debug"):
                click.echo(traceback.format_exc(), err=True)
            raise _Mistake(error) from None
        except KeyboardInterrupt as stop:
            click.echo("\nStopped.", err=True)
            ctx.exit(_TERMINATED if isinstance(stop, Terminated) else _INTERRUPTED)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            what = error.filename or "a file"
            raise _Mistake(SettingsError(f"cannot read or write {what} ({error.strerror})")) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception:
            click.echo("This is a bug of structens, not your mistake. Please report it with what follows.", err=True)
            raise


_EXAMPLES = """
structens demo                                        see it work on handwritten digits, in a minute or two
structens fit --data my_images/ --members 4           make one of your own images
structens predict runs/demo/structured.safetensors photo.png
structens compare --data my_images/ --seeds 3         set it beside its rivals
structens continual                                   one network that learns five tasks and forgets none
structens fit --help                                  all that can be chosen
"""


@click.group(cls=_Structens, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="structured-ensembles", prog_name="structens")
def main() -> None:
    """Turn one untrained network into an ensemble that knows when it does not know.

    Several networks that vote are right more often than one, and where they disagree, they do not know. But they cost
    several times the memory. A structured ensemble cuts several small networks, its MEMBERS, out of a single one: the
    channels that each of them keeps are learned before anything else. Together they may cost no more than a BUDGET,
    for example the bytes of the one network.
    """
    # Must be known before torch starts its threads: while they wait they would keep each other, and everybody else,
    # from working, which makes small networks several times slower on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


main.params.append(debug_option())
