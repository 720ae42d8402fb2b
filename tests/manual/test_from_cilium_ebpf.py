"""Runs the blocks of docs/howto/from-cilium-ebpf.md."""

from manual_pages import HOWTO, run_python

PAGE = "from-cilium-ebpf.md"
globals().update(run_python(HOWTO / PAGE))
