"""Runs the blocks of docs/howto/coverage.md."""

from manual_pages import HOWTO, run_python

PAGE = "coverage.md"
globals().update(run_python(HOWTO / PAGE))
