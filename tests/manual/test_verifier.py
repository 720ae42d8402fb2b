"""Runs the blocks of docs/howto/verifier.md."""

from manual_pages import HOWTO, run_python

PAGE = "verifier.md"
globals().update(run_python(HOWTO / PAGE))
