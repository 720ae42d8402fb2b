"""Runs the blocks of docs/howto/xdp.md."""

from manual_pages import HOWTO, run_python

PAGE = "xdp.md"
globals().update(run_python(HOWTO / PAGE))
