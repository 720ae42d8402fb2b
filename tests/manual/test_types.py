"""Runs the blocks of docs/howto/types.md."""

from manual_pages import HOWTO, run_python

PAGE = "types.md"
globals().update(run_python(HOWTO / PAGE))
