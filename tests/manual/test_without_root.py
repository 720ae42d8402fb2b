"""Runs the blocks of docs/howto/without-root.md."""

from manual_pages import HOWTO, run_python

PAGE = "without-root.md"
globals().update(run_python(HOWTO / PAGE))
