"""Runs the blocks of docs/howto/cost.md."""

from manual_pages import HOWTO, run_python

PAGE = "cost.md"
globals().update(run_python(HOWTO / PAGE))
