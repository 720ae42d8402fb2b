"""Runs the blocks of docs/howto/from-selftests.md."""

from manual_pages import HOWTO, run_python

PAGE = "from-selftests.md"
globals().update(run_python(HOWTO / PAGE))
