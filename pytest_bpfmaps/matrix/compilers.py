"""The compiler of a run (clang here; a guest uses the host's), and where its ``vmlinux.h`` comes from."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpfmaps.matrix.items import is_strict

if TYPE_CHECKING:
    from pytest_bpfmaps.compiler import Compiler
    from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting, VmlinuxH


def clang_of(config: pytest.Config) -> str | None:
    """Returns the clang that the run names, or None."""
    return config.getoption("bpf_clang") or config.getini("bpf_clang") or None


def in_guest() -> bool:
    """Returns whether this process is a guest's worker."""
    from pytest_bpfmaps.vm.protocol.rpc import Host

    return Host.connect() is not None


def is_portable(config: pytest.Config) -> bool:
    """Returns whether code that libbpf would refuse is an error here, too."""
    return bool(config.getini("bpf_portable")) or is_strict(config)


def vmlinux_setting(config: pytest.Config) -> Setting:
    """Returns where ``vmlinux.h`` comes from in this process. A worker has that from its controller."""
    from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting

    given = getattr(config, "workerinput", {}).get("bpfmaps", {}).get("vmlinux")
    named = config.getoption("bpf_vmlinux")
    folder = config.invocation_params.dir if named else config.rootpath
    return Setting(given or named or config.getini("bpf_vmlinux"), str(folder))


def compiler_of(config: pytest.Config) -> Compiler:
    """Returns the run's compiler."""
    if config.pluginmanager.has_plugin("terminalreporter"):  # no worker has one
        show_lines(config)
    return compiler_for(clang_of(config), is_portable(config), vmlinux_setting(config))


@cache
def compiler_for(clang: str | None, portable: bool = False, vmlinux: Setting | None = None) -> Compiler:
    """Returns clang on this machine, or in a guest the host's.

    With `portable`, a declaration that the source lacks is a `PortabilityError`, not a warning. `vmlinux`
    says where ``vmlinux.h`` comes from, by default the newest kernel.
    """
    from pytest_bpfmaps.vm.protocol.rpc import Host, RemoteCompiler

    host = Host.connect()
    if host is not None:
        return RemoteCompiler(host, portable=portable)
    from functools import partial

    from pytest_bpfmaps.cache.staging import InUse
    from pytest_bpfmaps.compiler.implicit_headers import show_warnings
    from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
    from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting

    setting, used = vmlinux or Setting(), []

    def chosen() -> str | None:
        path = setting.choose().path
        if path:
            used.append(InUse(Path(path).parent))  # in use as long as the compiler exists
        return path

    warn = partial(show_warnings, portable=portable)
    return LocalCompiler(clang, warn=warn, vmlinux=cache(chosen))


_SHOWN: pytest.StashKey[bool] = pytest.StashKey()


def show_lines(config: pytest.Config) -> None:
    """Has pytest show lines about the cache on its terminal. A worker shows them on standard error."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not config.stash.setdefault(_SHOWN, False):
        config.stash[_SHOWN] = True
        from pytest_bpfmaps.cache import stored_files

        lines = ExitStack()
        lines.enter_context(stored_files.listening(lambda line: terminal.write_line(f"bpfmaps: {line}")))
        config.add_cleanup(lines.close)


def vmlinux_line(config: pytest.Config, chosen: VmlinuxH) -> str:
    """Returns a line that says where ``vmlinux.h`` comes from. A header of the project comes first."""
    for folder in config.getini("bpf_paths"):
        own = config.rootpath / folder / "vmlinux.h"
        if own.is_file():
            return f"bpfmaps: vmlinux.h: the project's own, {os.path.relpath(own, config.rootpath)}"
    return f"bpfmaps: vmlinux.h {chosen.text}"
