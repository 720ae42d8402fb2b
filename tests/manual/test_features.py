"""Runs the blocks of docs/howto/features.md."""

from manual_pages import HOWTO, run_python

PAGE = "features.md"
globals().update(run_python(HOWTO / PAGE))
