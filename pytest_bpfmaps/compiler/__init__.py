"""Compiles C sources to BPF objects: clang, include folders, ``vmlinux.h``, the object cache.

Nothing here uses maps, programs or pytest. Guests ask the host to compile: they need no `local_compiler`.
"""

from __future__ import annotations

from pytest_bpfmaps.compiler.request import Compiler, CompileRequest
from pytest_bpfmaps.compiler.sources import find_source

__all__ = ["CompileRequest", "Compiler", "find_source"]
