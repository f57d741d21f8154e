"""The command line. Only what every command needs is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from typing import NoReturn

from clvr_bench.cli.app import app
from clvr_bench.errors import ClvrBenchError

MISTAKE = 2


def main() -> None:
    """Run the command line; a mistake of the user's is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except ClvrBenchError as error:
        _stop(str(error))
    except Exception as error:
        describe = getattr(error, "format_message", None)  # of usage errors, whichever click typer brings along
        if describe is None:
            raise
        if describe():
            _stop(f"{describe().rstrip('.')}. See: clvr-bench --help")
        sys.exit(MISTAKE)  # no command was named, and the help is printed already
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str) -> NoReturn:
    print(f"clvr-bench: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(MISTAKE)
