"""The fixtures. Thin: each makes an object of the floors below and closes it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpfmaps.compiler import Compiler
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.kernel.handle import RunningKernel
    from pytest_bpfmaps.triggers.cgroup import Cgroup
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    from pytest_bpfmaps.triggers.process import ProcessFactory
    from pytest_bpfmaps.vm.vmlinux_h import Setting


@pytest.fixture
def bpf(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """Compiles and loads BPF programs for one test; see `pytest_bpfmaps.harness.Bpf`."""
    yield from _bpf(request.config, request.path.parent)


@pytest.fixture(scope="module")
def bpf_module(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """As `bpf`, for all tests of a file."""
    yield from _bpf(request.config, request.path.parent)


@pytest.fixture(scope="session")
def bpf_session(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """As `bpf`, for the whole run; sources are looked up in `bpf_paths` only."""
    yield from _bpf(request.config, None)


@pytest.fixture(scope="session")
def bpf_kernel() -> RunningKernel:
    """The kernel that the test runs on; see `pytest_bpfmaps.kernel.handle.RunningKernel`."""
    from pytest_bpfmaps.kernel.handle import RunningKernel

    return RunningKernel()


@pytest.fixture
def bpf_netns() -> Iterator[NetNsFactory]:
    """Makes network namespaces for one test: ``bpf_netns()``; see `pytest_bpfmaps.triggers.netns.NetNs`."""
    from pytest_bpfmaps.triggers.netns import NetNsFactory

    with NetNsFactory() as factory:
        yield factory


@pytest.fixture
def bpf_cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """An empty cgroup v2 for one test; see `pytest_bpfmaps.triggers.cgroup.Cgroup`.

    Skips the test where no version 2 hierarchy is mounted.
    """
    from pytest_bpfmaps.errors import UnsupportedError
    from pytest_bpfmaps.triggers.cgroup import new_cgroup

    try:
        group = new_cgroup()
    except UnsupportedError as error:
        from pytest_bpfmaps.report.skips import skip_for_want

        skip_for_want(request.node, "cgroup v2", f"{error.why}; {error.fix}")
    with group as made:
        yield made


@pytest.fixture
def bpf_process() -> Iterator[ProcessFactory]:
    """Makes processes whose pid is known before they run: ``bpf_process(["true"])``.

    See `pytest_bpfmaps.triggers.process.PausedProcess`.
    """
    from pytest_bpfmaps.triggers.process import ProcessFactory

    with ProcessFactory() as factory:
        yield factory


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked `bpf_requires` where a probe says that the kernel, or clang, lacks the feature.

    And one marked `bpf_fresh_kernel` on the running kernel, which nobody starts for it.
    """
    if item.get_closest_marker("bpf_fresh_kernel") and not in_guest():
        from pytest_bpfmaps.report.skips import skip_for_want

        skip_for_want(
            item, "a fresh kernel", "needs a kernel of its own, which a guest has: --bpf-kernel=6.1"
        )
    for mark in item.iter_markers("bpf_requires"):
        from pytest_bpfmaps.kernel.handle import missing_features
        from pytest_bpfmaps.report.skips import skip_for_want

        features = dict(mark.kwargs)
        wanted = features.pop("clang", ())
        for feature, sentence in missing_features(mark.args, features):
            skip_for_want(item, feature, sentence)
        for expression in [wanted] if isinstance(wanted, str) else wanted:
            if clang := _lacking_clang(_clang(item.config), expression):
                fix = "install a newer one, such as clang-19, or name it with --bpf-clang"
                skip_for_want(item, f"clang with {expression}", f"{clang} lacks {expression}; {fix}")


def _bpf(config: pytest.Config, folder: Path | None) -> Iterator[Bpf]:
    from pytest_bpfmaps.harness import Bpf

    folders = [config.rootpath / p for p in config.getini("bpf_paths")]
    portable = is_portable(config)
    made = Bpf(compiler_of(config), [*([folder] if folder else []), *folders], portable=portable)
    try:
        yield made
    finally:
        made.close()


def _clang(config: pytest.Config) -> str | None:
    return config.getoption("bpf_clang") or config.getini("bpf_clang") or None


def in_guest() -> bool:
    """Whether this process is a guest's worker."""
    from pytest_bpfmaps.vm.rpc import Host

    return Host.connect() is not None


@cache
def _lacking_clang(clang: str | None, expression: str) -> str | None:
    from pytest_bpfmaps.compiler.abilities import lacking_ability

    return lacking_ability(compiler_for(clang), expression)


def is_portable(config: pytest.Config) -> bool:
    """Whether what libbpf would refuse is an error here, too."""
    from pytest_bpfmaps.report.skips import is_strict

    return bool(config.getini("bpf_portable")) or is_strict(config)


def vmlinux_setting(config: pytest.Config) -> Setting:
    """What ``vmlinux.h`` comes from in this process; a worker was told by the process that has it."""
    from pytest_bpfmaps.vm.vmlinux_h import Setting

    given = getattr(config, "workerinput", {}).get("bpfmaps", {}).get("vmlinux")
    named = config.getoption("bpf_vmlinux")
    folder = config.invocation_params.dir if named else config.rootpath
    return Setting(given or named or config.getini("bpf_vmlinux"), str(folder))


def compiler_of(config: pytest.Config) -> Compiler:
    """The run's compiler."""
    if config.pluginmanager.has_plugin("terminalreporter"):  # no worker has one
        from pytest_bpfmaps.report.machine import show_lines

        show_lines(config)
    return compiler_for(_clang(config), is_portable(config), vmlinux_setting(config))


@cache
def compiler_for(clang: str | None, portable: bool = False, vmlinux: Setting | None = None) -> Compiler:
    """clang on this machine; in a guest, the host's. With `portable` it assumes no missing declaration.

    `vmlinux` says what ``vmlinux.h`` comes from, by default the newest kernel.
    """
    from pytest_bpfmaps.vm.rpc import Host, RemoteCompiler

    host = Host.connect()
    if host is not None:
        return RemoteCompiler(host, portable=portable)
    from functools import partial

    from pytest_bpfmaps.compiler import LocalCompiler
    from pytest_bpfmaps.compiler.local import show_warnings
    from pytest_bpfmaps.vm.staging import InUse
    from pytest_bpfmaps.vm.vmlinux_h import Setting

    setting, used = vmlinux or Setting(), []

    def chosen() -> str | None:
        path = setting.choose().path
        if path:
            used.append(InUse(Path(path).parent))  # as long as there is a compiler
        return path

    warn = partial(show_warnings, portable=portable)
    return LocalCompiler(clang, warn=warn, vmlinux=cache(chosen))
