"""Does in advance what a pytest worker does before its first test.

On the host, that shows which modules and files it needs. In a guest, it is done before the state is saved.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import io
import json
import linecache
import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pytest_bpfmaps.compat.pytest_names import without_rewriting_plugins
from pytest_bpfmaps.elf.process_mappings import mappings_of
from pytest_bpfmaps.vm.guest import code_archive, lookup_caches

# Modules that the pytest session below does not import: those that tests and failures need, and the worker's
# side of pytest-xdist.
MODULES = (
    *("execnet", "execnet.gateway_base", "xdist", "xdist.plugin", "xdist.remote", "xdist.looponfail"),
    *("pytest_bpfmaps.harness", "pytest_bpfmaps.objects", "pytest_bpfmaps.events", "pytest_bpfmaps.maps"),
    *("pytest_bpfmaps.kernel.features", "pytest_bpfmaps.kernel.running_kernel", "pytest_bpfmaps.plugin"),
    *("pytest_bpfmaps.fixtures", "pytest_bpfmaps.report.failures", "pytest_bpfmaps.vm.protocol.rpc"),
    *("pytest_bpfmaps.vm.kernels.vmlinux_choice", "pytest_bpfmaps.vm.protocol.phases"),
    *(
        "pytest_bpfmaps.vm.guest",
        "pytest_bpfmaps.vm.guest.saved_worker",
        "pytest_bpfmaps.vm.guest.lookup_caches",
    ),
    *("pytest_bpfmaps.vm.guest.command", "pytest_bpfmaps.vm.guest.own_pty"),
    "pytest_bpfmaps.matrix.debugging",
    *("pytest_bpfmaps.vm.guest.supervisor", "pytest_bpfmaps.kernel.kmsg", "pytest_bpfmaps.kernel.splats"),
    *(
        "pytest_bpfmaps.report.kernel_log",
        "pytest_bpfmaps.report.header",
        "pytest_bpfmaps.compat.other_plugins",
    ),
    *("pytest_bpfmaps.matrix.plain_reports", "pytest_bpfmaps.report.root_folder"),
    *("pytest_bpfmaps.matrix.bpf_requires", "pytest_bpfmaps.matrix.compilers"),
    *("pytest_bpfmaps.matrix.source_items", "pytest_bpfmaps.matrix.worker"),
    *("pytest_bpfmaps.matrix.measuring", "pytest_bpfmaps.matrix.used_sources"),
    *("pytest_bpfmaps.compiler.request", "pytest_bpfmaps.triggers", "pytest_bpfmaps.programs.prog_run"),
    # What measures, for the options that ask for it. Else their runs would import it, for half a second.
    *(f"pytest_bpfmaps.report.{what}_session" for what in ("coverage", "cost", "map_usage", "map_warnings")),
    *(f"pytest_bpfmaps.coverage.{name}" for name in ("recording", "counters.recorder", "blocks.recorder")),
    *("elftools.elf.elffile", "elftools.elf.sections"),
    *("subprocess", "threading", "socket", "select", "mmap", "struct", "ctypes", "difflib", "pprint", "pdb"),
    *("ipaddress", "shutil", "signal", "selectors", "unittest.mock", "logging.handlers", "random"),
    *("tomllib", "packaging.version", "asyncio", "encodings.idna", "encodings.unicode_escape"),
)
OPTIONAL = (
    *("pyroute2", "pyroute2.iproute.linux", "pyroute2.netns"),
    *("pytest_bpfmaps.triggers.netns", "pytest_bpfmaps.report.assertions"),
)

# The source of these modules is read or looked for.
READ = ("os", "xdist.remote")

_NO_FILES = ("/proc/", "/sys/", "/dev/", "/run/")
METADATA = ("METADATA", "PKG-INFO", "RECORD", "direct_url.json", "entry_points.txt", "top_level.txt")

SESSION = {
    "pyproject.toml": """
[tool.pytest]
minversion = "9.0"
strict = true
addopts = ["-ra"]
testpaths = ["."]
filterwarnings = ["error"]
""",
    "conftest.py": """
import pytest

pytest_plugins = ["pytester"]

@pytest.fixture
def number():
    assert pytest
    return 1
""",
    "test_preload.py": """
import pytest

@pytest.mark.bpf_requires("hash")
@pytest.mark.parametrize("n", [1])
def test_passes(number, n, tmp_path, monkeypatch, capsys, request):
    assert number == n

@pytest.mark.skip(reason="none")
def test_is_skipped():
    pass

def test_fails():
    assert {"a": 1} == {"a": 2}
""",
}


def preload(say: Callable[[str], object] = lambda step: None) -> None:
    """Imports everything, runs a small pytest session in this process, and remembers what pytest looks up.

    `say` is called with each step.
    """
    for name in MODULES:
        say(f"import {name}")
        importlib.import_module(name)
    for name in OPTIONAL:
        say(f"import {name}")
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    from pytest_bpfmaps.libbpf import version

    with contextlib.suppress(Exception):
        version()  # opens the library
    lookup_caches.remember_packages()
    _say_too_late()
    gc.freeze()  # pytest runs the garbage collector at the end of a session
    say("a session of pytest")
    with tempfile.TemporaryDirectory() as folder:
        run_session(folder)
    say("what pytest looks up")
    platform.platform(), platform.processor()  # starts processes; Python keeps the answers
    lookup_caches.remember_worker()
    lookup_caches.remember_config()
    _say_too_late()


def run_session(folder: str) -> None:
    """Runs a small session of pytest in this process, with its files in `folder`."""
    import pytest

    here = os.getcwd()
    for name, text in SESSION.items():
        Path(folder, name).write_text(text)
    os.chdir(folder)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        without_rewriting_plugins(),
    ):
        pytest.main(["-q", "--rootdir", folder, "--basetemp", f"{folder}/tmp"], plugins=[_Plugins()])
    os.chdir(here)
    for name in ("conftest", "test_preload"):
        sys.modules.pop(name, None)
    linecache.clearcache()  # forgets the sources that the failure was shown with


class _Plugins:
    """A plugin that remembers the other plugins, and shows nothing."""

    def pytest_collection_finish(self, session: Any) -> None:
        """Ends pytest's own output: some plugins would import much for the summary, which no worker has."""
        session.config.pluginmanager.unregister(name="terminalreporter")

    def pytest_sessionfinish(self, session: Any) -> None:
        import pytest

        plugins = session.config.pluginmanager.get_plugins()
        lookup_caches.remember_plugins(plugins, type(pytest.fixture(lambda: None)))


def _say_too_late() -> None:
    """Keeps pytest from warning that these modules were imported before it could rewrite their assertions."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            with contextlib.suppress(Exception):
                module.__doc__ = f"{module.__doc__ or ''}\nPYTEST_DONT_REWRITE"


def report(early: list[str], recorder: code_archive.Recorder) -> None:
    """Preloads on the host. Writes a line of JSON with files and sources, then the modules.

    ``sources`` are the files that the modules came from. ``files`` are others that a guest needs: among them
    those of the modules `early`, which the guest imports before it has the archive of modules.
    """
    preload()
    sources = recorder.finish()
    read = (p for p in [*recorder.reads] if p.startswith("/") and not p.startswith(_NO_FILES))
    found = {sys.executable, *_files(early), *_mapped(), *_site(), *_loader(), *_files(READ)}
    found.update(_files(_extensions()))
    found.update(path for path in read if os.path.isfile(path))
    files = sorted({os.path.abspath(path) for path in found if os.path.exists(path)})
    out = sys.stdout.buffer
    out.write(json.dumps({"files": files, "sources": sources}).encode() + b"\n")
    recorder.write(out)


def _files(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        paths = [getattr(module, "__file__", None), getattr(module, "__cached__", None)]
        if (own := _replaced(name, spec)) is not None:
            paths += [own.origin, own.cached]
        yield from (path for path in paths if isinstance(path, str) and path.startswith("/"))


def _extensions() -> list[str]:
    """Returns the modules that are libraries. Where these are links, only the targets are mapped."""
    loaders = {name: getattr(module, "__loader__", None) for name, module in sys.modules.items()}
    return [name for name, loader in loaders.items() if isinstance(loader, ExtensionFileLoader)]


def _replaced(name: str, spec: ModuleSpec | None) -> ModuleSpec | None:
    """Returns a module's own spec if it put another in its place, as collections.abc in Python 3.13."""
    folders = getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", None)
    if spec is None or spec.name == name or folders is None:
        return None
    return PathFinder.find_spec(name, folders)


def _mapped() -> set[str]:
    """Returns executables and libraries, with every name in their folder that leads to them.

    The loader looks for a library by its soname, which may be another word than the file: ``libelf.so.1``
    leads to ``libelf-0.188.so``.
    """
    found = {m.path for m in mappings_of() if m.is_file and os.path.isfile(m.path)}
    for folder in set(map(os.path.dirname, found)):
        with os.scandir(folder) as entries:
            links = [entry.path for entry in entries if ".so" in entry.name and entry.is_symlink()]
        found.update([link for link in links if os.path.realpath(link) in found])
    return found


def _site() -> set[str]:
    """Returns what Python looks at while it starts, and the packages' entry points."""
    found = {os.path.join(p, "pyvenv.cfg") for p in (sys.prefix, os.path.dirname(sys.executable))}
    found.add("/etc/ld.so.cache")
    for folder in {*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        if os.path.exists(folder):
            found.add(folder)  # a folder or a zip archive
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                if name.endswith(".pth"):
                    found.add(os.path.join(folder, name))
                elif name.endswith((".dist-info", ".egg-info")):
                    found.add(os.path.join(folder, name))  # a folder, or a file that is the metadata itself
                    found |= {os.path.join(folder, name, part) for part in METADATA}
    return found


def _loader() -> set[str]:
    """Returns the dynamic loader, by the name that this interpreter has for it."""
    from pytest_bpfmaps.elf.reader import loader, open_elf

    with open_elf("/proc/self/exe") as program:
        return {loader(program)} - {""}
