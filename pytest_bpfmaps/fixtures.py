"""The fixtures. Each makes one object, and closes it after the test, file or run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpfmaps.cost.benchmark import BenchmarkFixture
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.kernel.running_kernel import RunningKernel
    from pytest_bpfmaps.triggers.cgroup import Cgroup
    from pytest_bpfmaps.triggers.netns import NetNsFactory
    from pytest_bpfmaps.triggers.process import ProcessFactory


@pytest.fixture
def bpf(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """Compiles and loads BPF programs for one test; see `pytest_bpfmaps.harness.Bpf`."""
    yield from _bpf(request, request.path.parent, "tmp_path")


@pytest.fixture(scope="module")
def bpf_module(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """Does what `bpf` does, for all tests of a file."""
    yield from _bpf(request, request.path.parent)


@pytest.fixture(scope="session")
def bpf_session(request: pytest.FixtureRequest) -> Iterator[Bpf]:
    """Does what `bpf` does, for the whole run. It looks up sources in `bpf_paths` only."""
    yield from _bpf(request, None)


@pytest.fixture(scope="session")
def bpf_kernel() -> RunningKernel:
    """Returns the kernel that the test runs on; see `pytest_bpfmaps.kernel.running_kernel.RunningKernel`."""
    from pytest_bpfmaps.kernel.running_kernel import RunningKernel

    return RunningKernel()


@pytest.fixture
def bpf_netns() -> Iterator[NetNsFactory]:
    """Makes network namespaces for one test: ``bpf_netns()``; see `pytest_bpfmaps.triggers.netns.NetNs`."""
    from pytest_bpfmaps.triggers.netns import NetNsFactory

    with NetNsFactory() as factory:
        yield factory


@pytest.fixture
def bpf_cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """Makes an empty cgroup v2 for one test; see `pytest_bpfmaps.triggers.cgroup.Cgroup`.

    Skips the test where no version 2 hierarchy is mounted.
    """
    from pytest_bpfmaps.errors import UnsupportedError
    from pytest_bpfmaps.triggers.cgroup import new_cgroup

    try:
        group = new_cgroup()
    except UnsupportedError as error:
        from pytest_bpfmaps.matrix.bpf_requires import skip_for_want

        skip_for_want(request.node, "cgroup v2", f"{error.why}; {error.fix}")
    with group as made:
        yield made


@pytest.fixture
def bpf_benchmark(request: pytest.FixtureRequest) -> BenchmarkFixture:
    """Measures what a run of a program costs; see `pytest_bpfmaps.cost.benchmark.BenchmarkFixture`."""
    from pytest_bpfmaps.cost.benchmark import BenchmarkFixture

    return BenchmarkFixture(lambda name, text: request.node.user_properties.append((name, text)))


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
    """Skips a test whose markers require a feature that is missing here."""
    if any(map(item.get_closest_marker, ("bpf_requires", "bpf_fresh_kernel"))):
        from pytest_bpfmaps.matrix.bpf_requires import check_markers

        check_markers(item)


def pytest_sessionfinish() -> None:
    """Has the kernel no longer count the runs of programs."""
    if (counting := sys.modules.get("pytest_bpfmaps.kernel.run_counts")) is not None:
        counting.STATISTICS.close()


def _bpf(request: pytest.FixtureRequest, folder: Path | None, temporary: str | None = None) -> Iterator[Bpf]:
    from pytest_bpfmaps.errors import UnsupportedError
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.kernel.run_counts import STATISTICS
    from pytest_bpfmaps.matrix.compilers import compiler_of, is_portable
    from pytest_bpfmaps.matrix.measuring import observer_of
    from pytest_bpfmaps.matrix.used_sources import recording

    def temporary_folder() -> Path:
        """Returns the folder for files that a test fetches from an agent."""
        if temporary is not None:
            made: Path = request.getfixturevalue(temporary)
            return made
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        return factory.mktemp("artifacts")

    config = request.config
    folders = [config.rootpath / p for p in config.getini("bpf_paths")]
    portable = is_portable(config)
    made = Bpf(
        recording(compiler_of(config), request.node),
        [*([folder] if folder else []), *folders],
        portable=portable,
        observer=observer_of(config),
        temporary=temporary_folder,
    )
    with suppress(UnsupportedError):  # without libbpf: a load says so
        STATISTICS.start()  # until the process ends: each start and end takes long in an emulated guest
    try:
        yield made
    finally:
        made.close()
