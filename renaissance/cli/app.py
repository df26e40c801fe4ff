"""The `renaissance` command: its groups, and the border where errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

import renaissance
from renaissance.cli import (
    asking,
    carding,
    checking,
    conforming,
    costing,
    doctoring,
    emoji,
    evaluating,
    explaining,
    exporting,
    generating,
    importing,
    ledgers,
    listing,
    mapping,
    plugin_making,
    preparing,
    publishing,
    reproducing,
    running,
    storing,
    studying,
    zooing,
)
from renaissance.errors import RenaissanceError

USAGE = 2
BUG = 1
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell shows for its own tools when the reader goes away

app = typer.Typer(
    name="renaissance",
    help="Assemble, pretrain, evaluate and save vision-language encoders from one line of spec.",
    epilog="Example: renaissance run demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for group in (
    running,
    evaluating,
    asking,
    reproducing,
    importing,
    publishing,
    exporting,
    explaining,
    checking,
    conforming,
    costing,
    mapping,
    ledgers,
    carding,
    listing,
    plugin_making,
):
    group.add_to(app)

data = typer.Typer(name="data", help="Prepare corpora, make data, and look for faults in them.", no_args_is_help=True)
for group in (preparing, generating, doctoring, emoji):
    group.add_to(data)
app.add_typer(data)

features = typer.Typer(name="features", help="Stores of what frozen towers give.", no_args_is_help=True)
storing.add_to(features)
app.add_typer(features)

study = typer.Typer(
    name="study",
    help="Controlled studies: plan, run, look at, report. `study NAME` means `study run NAME`.",
    cls=studying.RunsByDefault,
    no_args_is_help=True,
)
studying.add_to(study)
app.add_typer(study)

zoo = typer.Typer(name="zoo", epilog="Example: renaissance zoo", invoke_without_command=True)
zooing.add_to(zoo)
app.add_typer(zoo)


def _version(asked: bool) -> None:
    if asked:
        print(f"renaissance {renaissance.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code, which `renaissance.errors` lists."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        result = get_command(app).main(words, prog_name="renaissance", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _quietly()
    except SystemExit as leaving:  # typer leaves by itself when a pipe breaks, and after a completion
        return _quietly() if isinstance(leaving.__context__, BrokenPipeError) else int(leaving.code or 0)
    except typer.TyperException as error:
        return _failed(error, error.format_message(), USAGE, debug)
    except RenaissanceError as error:
        return _failed(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _failed(error, "interrupted", INTERRUPTED, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}. This is a bug: please report it, with what --debug shows"
        return _failed(error, what, BUG, debug)
    return result if isinstance(result, int) else 0


def _failed(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if message:  # empty: the help was shown, as no command was given
        print(f"renaissance: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


def _quietly() -> int:
    """Keep Python from flushing into the broken pipe when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
