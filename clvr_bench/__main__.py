"""``python -m clvr_bench``: the command line."""

from clvr_bench.cli import main

main()
