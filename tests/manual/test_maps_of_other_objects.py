"""Runs the blocks of docs/howto/maps-of-other-objects.md."""

from manual_pages import HOWTO, run_python

PAGE = "maps-of-other-objects.md"
globals().update(run_python(HOWTO / PAGE))
