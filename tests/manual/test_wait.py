"""Runs the blocks of docs/howto/wait.md."""

from manual_pages import HOWTO, run_python

PAGE = "wait.md"
globals().update(run_python(HOWTO / PAGE))
