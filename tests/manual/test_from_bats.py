"""Runs the blocks of docs/howto/from-bats.md."""

from manual_pages import HOWTO, run_python

PAGE = "from-bats.md"
globals().update(run_python(HOWTO / PAGE))
