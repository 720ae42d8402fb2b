"""Runs the blocks of docs/howto/debug.md."""

from manual_pages import HOWTO, run_python

PAGE = "debug.md"
globals().update(run_python(HOWTO / PAGE))
