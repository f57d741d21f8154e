"""The command line. Only what every command needs is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from typing import NoReturn

from clvr_bench.cli.app import app
from clvr_bench.cli.plugin_flags import NAMES
from clvr_bench.errors import ClvrBenchError
from clvr_bench.interruption import interruption

MISTAKE = 2


def main() -> None:
    """Run the command line; a mistake of the user's is one line on standard error and exit code 2.

    Ctrl-C and SIGTERM end it with 128 and their number, as shells have it; what can save itself does so first.
    """
    try:
        with interruption:
            code = app(standalone_mode=False)
    except ClvrBenchError as error:
        _stop(str(error))
    except Exception as error:
        describe = getattr(error, "format_message", None)  # of usage errors, whichever click typer brings along
        if describe is None:
            raise
        unknown = getattr(error, "option_name", None)
        if unknown in NAMES:
            _stop(f"{unknown} belongs before the command: clvr-bench {unknown} ... COMMAND ...")
        if describe():
            _stop(f"{describe().rstrip('.')}. See: clvr-bench --help")
        sys.exit(MISTAKE)  # no command was named, and the help is printed already
    if interruption.requested is not None:  # typer caught it
        _stop(
            "interrupted; finished work is kept, and the same command goes on from there.", 128 + interruption.requested
        )
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int = MISTAKE) -> NoReturn:
    print(f"clvr-bench: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(code)
