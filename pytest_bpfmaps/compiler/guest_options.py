"""Checks the options of clang that a guest gives: it may give only those that write no file and load no code.

clang has thousands of options, and each version has more. Some write to any file that they name (``-MF``,
``--serialize-diagnostics``), some load code (``-fplugin=``), some start another program. So this module has a
list of allowed options: those that BPF programs are built with. It reads a command line as clang does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pytest_bpfmaps.errors import CompileError

# Switches: each may begin with "no-", and none takes a value.
_SWITCHES = """
    addrsig associative-math asynchronous-unwind-tables builtin caret-diagnostics color-diagnostics
    common constant-cfstrings data-sections delete-null-pointer-checks diagnostics-fixit-info
    diagnostics-show-note-include-stack diagnostics-show-option discard-value-names
    dollars-in-identifiers eliminate-unused-debug-types exceptions fast-math finite-loops
    force-enable-int128 freestanding function-sections gnu-inline-asm gnu-keywords gnu89-inline hosted
    ident inline inline-functions inline-hint-functions jump-tables keep-static-consts
    lax-vector-conversions math-errno merge-all-constants ms-compatibility ms-extensions
    omit-frame-pointer optimize-sibling-calls pack-struct pic PIC pie PIE plt reroll-loops rtti
    semantic-interposition short-enums short-wchar show-column show-source-location signed-bitfields
    signed-char slp-vectorize spell-checking stack-clash-protection stack-protector stack-protector-all
    stack-protector-strong standalone-debug strict-aliasing strict-enums strict-overflow strict-return
    struct-path-tbaa trapping-math trigraphs unique-section-names unroll-loops unsafe-math-optimizations
    unsigned-bitfields unsigned-char unwind-tables vectorize verbose-asm wrapv zero-initialized-in-bss
"""
# Options with a value, which is a word, or a path that only goes into debug information.
_VALUES = """
    cf-protection debug-compilation-dir debug-default-version debug-prefix-map diagnostics-color
    error-limit file-compilation-dir file-prefix-map lax-vector-conversions macro-backtrace-limit
    macro-prefix-map message-length pack-struct stack-protector strict-flex-arrays tabstop
    template-backtrace-limit trivial-auto-var-init visibility zero-call-used-regs
"""
_TARGET = r"bpf(el|eb)?(-unknown|-none|-linux)*"
_ALONE = re.compile(
    "|".join(
        (
            rf"-f(no-)?({'|'.join(_SWITCHES.split())})",
            rf"-f({'|'.join(_VALUES.split())})=.*",
            r"-fno-builtin-\w+",
            r"-[DU].+",
            r"-I[^-].*",
            r"-(isystem|iquote|idirafter|isysroot)[=/.].*",  # not -isystem-after
            r"--sysroot=.*",
            r"-O([0-3szg]|fast)?",
            r"-g([0-3]|gdb[0-3]?|dwarf(-[2-5])?|dwarf(32|64)|line-tables-only|line-directives-only)?",
            r"-g(no-)?(column-info|embed-source|record-command-line|strict-dwarf|inline-line-tables|pubnames)",
            r"-W[A-Za-z0-9#][\w+#=-]*",  # no comma: -Wp,-MD,FILE passes an option to the preprocessor
            r"-[wcvHP]|-pipe|-ansi|-undef|-trigraphs|-pthread|-Qunused-arguments|-Qn|-Qy",
            r"--?pedantic(-errors)?",
            r"-nostd(inc|lib|libinc)|-nobuiltininc",
            r"--?std=[\w+:.-]+",
            r"-R(pass|pass-missed|pass-analysis)=.*",
            r"-m(cpu|tune)=[\w.+-]+",
            r"-m(little|big)-endian",
            r"-m(no-)?(alu32|red-zone|implicit-float)",
            rf"--target={_TARGET}",
            r"-x(c|none)",
        )
    ),
    re.DOTALL,
)
# Options whose value is the next argument, and the values that are allowed.
_ANY = re.compile(r".+", re.DOTALL)
_BY_TWO = dict.fromkeys(
    ("-D", "-U", "-I", "-isystem", "-iquote", "-idirafter", "-isysroot", "-include", "-imacros"), _ANY
) | {
    "-target": re.compile(_TARGET),
    "-x": re.compile(r"c|none"),
    "-mllvm": re.compile(r"-?-(bpf-[\w-]+|inline-threshold|unroll-threshold)(=[\w.+-]*)?"),
}
# The words that -Xclang may pass to the compiler itself; each word has its own -Xclang.
_INNER = re.compile(
    r"-target-feature|-target-cpu|[+-](alu32|dwarfris)|v[1-9]|generic|probe|-disable-O0-optnone"
    r"|-disable-llvm-passes|-disable-lifetime-markers|-fno-validate-pch"
)


def check_options(options: Iterable[str]) -> None:
    """Raises a `CompileError` that names the first option which is not in the list."""
    words = iter(options)
    for word in words:
        refused = _refused(word, words)
        if refused is not None:
            raise CompileError(
                "will not compile for a guest",
                on=f"with the option {refused!r}",
                why="it is not in the list of options that write no file and load no code",
                fix="leave it out; or compile on the host, and give bpf.load the object; or put it into a "
                "script that runs clang, and name the script with --bpf-clang",
            )


def _refused(word: str, more: Iterator[str]) -> str | None:
    """Returns the option that begins with `word`, and goes on with `more`, if it is refused; else None.

    clang replaces ``@FILE`` by the content of the file, in any place, before it reads any option.
    """
    if word in _BY_TWO or word == "-Xclang":
        value = next(more, "")
        allowed = _INNER if word == "-Xclang" else _BY_TWO[word]
        return None if allowed.fullmatch(value) and not value.startswith("@") else f"{word} {value}"
    return None if _ALONE.fullmatch(word) else word
