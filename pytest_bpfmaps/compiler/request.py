"""What to compile, as plain data that can be sent to another process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_bpfmaps.errors import CompileError


@dataclass(frozen=True)
class CompileRequest:
    """One BPF program to compile: a file (`source`) or C text (`code`), and how.

    `source` is an absolute path; `name` is the file name of `code` in diagnostics and debug information.
    `include` has folders that are searched before the system's. `cflags` has extra arguments for clang, which
    come last and take precedence. `defines` has macros with their value or None. `btf` is the path of a raw
    BTF file or a header from which ``vmlinux.h`` is made; None leaves that to the compiler. `counting` asks
    for an object that counts which of its lines run, and `mcdc` for one that also records the values of
    conditions; see the module `counting`.
    """

    source: str | None = None
    code: str | None = None
    name: str = "inline.bpf.c"
    include: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    defines: tuple[tuple[str, str | None], ...] = ()
    btf: str | None = None
    counting: bool = False
    mcdc: bool = False

    def __post_init__(self) -> None:
        if (self.source is None) == (self.code is None):
            raise ValueError("a CompileRequest has either a source or code")
        if self.source is not None and not self.source.startswith("/"):
            raise ValueError(f"the source of a CompileRequest is an absolute path, not {self.source!r}")
        macros = [word for pair in self.defines for word in pair if word is not None]
        for words, never in ((self.cflags, "\0"), (macros, "\0\n")):
            for word in words:
                if not isinstance(word, str) or set(word) & set(never):
                    why = "it has a NUL byte or a line end" if isinstance(word, str) else "it is no text"
                    raise CompileError("cannot compile", on=f"with {word!r}", why=why, fix="give plain text")

    @property
    def file_name(self) -> str:
        """The source's file name, without a folder."""
        return Path(self.source or self.name).name or "inline.bpf.c"

    @property
    def stem(self) -> str:
        """The file name without ``.bpf.c`` or ``.c``, which is libbpf's name of the object."""
        name = self.file_name
        return name.removesuffix(".c").removesuffix(".bpf") or "inline"

    def to_json(self) -> str:
        """Returns the request as JSON text."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> CompileRequest:
        """Returns the request that `to_json` wrote."""
        fields = json.loads(text)
        fields["defines"] = tuple((name, value) for name, value in fields["defines"])
        fields |= {name: tuple(fields[name]) for name in ("include", "cflags")}
        return cls(**fields)


class Compiler(Protocol):
    """Turns a request into an object file: with clang on this machine, or by asking another machine."""

    def compile(self, request: CompileRequest) -> Path:
        """Returns the path of the BPF object for `request`. Raises `CompileError`."""
        ...

    def link(self, objects: Sequence[Path]) -> Path:
        """Returns the path of one object that is linked of several. Raises `CompileError`."""
        ...
