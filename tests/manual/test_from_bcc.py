"""Runs the blocks of docs/howto/from-bcc.md."""

from manual_pages import HOWTO, run_python

PAGE = "from-bcc.md"
globals().update(run_python(HOWTO / PAGE))
