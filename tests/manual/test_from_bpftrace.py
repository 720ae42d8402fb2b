"""Runs the blocks of docs/howto/from-bpftrace.md."""

from manual_pages import HOWTO, run_python

PAGE = "from-bpftrace.md"
globals().update(run_python(HOWTO / PAGE))
