"""Helpers of tests that boot guests themselves: finding the guests' QEMU, another QEMU, and waiting."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

QEMU = shutil.which("qemu-system-x86_64")  # the path before tests change $PATH


def qemus_for(folder: Path) -> list[int]:
    """Returns the QEMU processes whose gateway works in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_guest = b"bpfmaps.stream" in (process / "cmdline").read_bytes()
            if is_guest and (process / "cwd").resolve() == folder.resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Returns as soon as it is true. Fails after `seconds`; a busy machine needs them to save a state."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def emulating(folder: Path, *more: str, before: str = "") -> str:
    """Makes a QEMU that emulates instead of using KVM. It runs kernels as slowly as a very busy machine.

    `more` are further arguments. `before` is shell text that runs first.
    """
    script = folder / "qemu-system-x86_64"
    rules = {"*accel=kvm": "${word%kvm}tcg", "kvm": "tcg", "host": "max,la57=off,fsrm=off,erms=off"}
    # Under KVM a kernel never checks its timer. Under emulation on a busy machine the check may fail.
    rules["*root=none"] = '"$word no_timer_check"'
    cases = " ".join(f"{pattern}) word={word} ;;" for pattern, word in rules.items())
    lines = ["#!/bin/bash", before, f'for word; do case $word in {cases} esac; words+=("$word"); done']
    lines += [f'exec {QEMU} "${{words[@]}}" {" ".join(more)}', ""]
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    return str(script)
