"""The command line. Only what every command needs is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import sys

from clvr_bench.cli.app import app
from clvr_bench.errors import ClvrBenchError


def main() -> None:
    """Run the command line; a mistake of the user's is one line on standard error and exit code 2."""
    try:
        app()
    except ClvrBenchError as error:
        print(f"clvr-bench: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(2)
    except KeyboardInterrupt:
        print("clvr-bench: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)  # noqa: T201
        sys.exit(130)
