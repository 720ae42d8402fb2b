"""Turns ``decl/*.h`` into ``_declarations.py``, which loads without a C parser.

Run ``python -m pytest_bpfmaps.libbpf.build_declarations`` after a change to a declaration; a test fails while
the two differ. cffi calls this its out-of-line ABI mode: the wheel stays pure Python.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = ("libc.h", "linux_bpf.h", "perf_event.h", "btf.h", "bpf.h", "libbpf.h")
TARGET = HERE / "_declarations.py"


def render() -> str:
    """Returns the text of ``_declarations.py`` for the headers as they are now."""
    from cffi import FFI

    ffi = FFI()
    for header in HEADERS:
        ffi.cdef((HERE / "decl" / header).read_text())
    ffi.set_source("pytest_bpfmaps.libbpf._declarations", None)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.py"
        ffi.emit_python_code(str(target))
        return target.read_text()


if __name__ == "__main__":
    TARGET.write_text(render())
