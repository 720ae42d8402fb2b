"""Tests what a guest does before its state is saved, in processes of their own on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot import warm
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.qemu import MachineConfig
from pytest_bpfmaps.vm.machine.qmp import Monitor

AGREES = """
import importlib.metadata as metadata, json, sys
from pytest_bpfmaps.vm.guest import lookup_caches

def facts():
    found = {d.name: d for d in reversed(list(metadata.distributions()))}
    points = {n: sorted(map(str, d.entry_points)) for n, d in found.items()}
    texts = {n: sorted(map(str, d.metadata.items())) + [d.metadata.get_payload()] for n, d in found.items()}
    return [(n, d.name, d.version, points[n], texts[n], len(d.files or [])) for n, d in found.items()]

before = facts()
lookup_caches.remember_packages()
assert facts() == before and len(before) > 5
try:
    metadata.version("no-such-package")
except metadata.PackageNotFoundError:
    print("agrees")
"""


def test_what_is_remembered_of_packages_is_what_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", AGREES], capture_output=True, text=True, check=False)
    assert done.stdout == "agrees\n", done.stderr


def test_preloading_names_the_files_of_a_worker() -> None:
    found = warm.preloaded()
    names = {Path(file).name for file in found.files}
    assert {"remote.py", "os.py", "entry_points.txt"} <= names
    assert any(name.startswith("libbpf.so") for name in names)
    assert sys.executable in found.files
    assert {"gateway_base.py", "remote.py", "plugin.py", "terminal.py"} <= {
        Path(s).name for s in found.sources
    }


def test_preloading_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    warm.preloaded()
    assert list(tmp_path.iterdir()) == []


EXPLAINS = """
import sys
from pytest_bpfmaps.vm.guest import preload
preload.preload()
before = set(sys.modules)
from pytest_bpfmaps.elf.binaries import find_binary
from pytest_bpfmaps.elf.functions_by_name import elf_functions
from pytest_bpfmaps.kernel.attach_names import functions
library = elf_functions(find_binary("libc"))
assert library.find("realpath") and "did you mean" in library.closest("realpaht")
functions().closest("tcp_v4_conect")
print(sorted(name for name in sys.modules.keys() - before if "." not in name or "elf" in name))
"""


def test_nothing_is_imported_to_explain_a_missing_function() -> None:
    """An import in an emulated guest takes as long as the explanation itself, or longer."""
    done = subprocess.run([sys.executable, "-c", EXPLAINS], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("PYTEST_ADDOPTS", "-p no:hypothesispytest"), ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")]
)
def test_preloading_ignores_what_this_run_asks_of_pytest(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert "_hypothesis_pytestplugin.py" in {Path(source).name for source in warm.preloaded().sources}


ASKS = """
import inspect, pathlib, sys
import package.module as module, package.nested.deep as deep, package
found = {m.__name__: (m.__file__, m.__cached__, m.__package__, type(m.__loader__).__name__, m.__spec__.origin)
         for m in (module, deep)}
print(found, [*package.nested.__path__], package.nested.__file__, module.f.__code__.co_filename, module.f())
"""


def test_modules_come_from_a_file_as_they_would_from_their_sources(tmp_path: Path) -> None:
    nested = tmp_path / "package" / "nested"  # a package without an __init__.py
    nested.mkdir(parents=True)
    (nested.parent / "__init__.py").write_text("")
    (nested.parent / "module.py").write_text("import package.nested.deep\ndef f(): return __name__")
    (nested / "deep.py").write_text("")
    target = str(tmp_path / "modules")
    ours = "from pytest_bpfmaps.vm.guest import code_archive"

    def run(program: str) -> subprocess.CompletedProcess[str]:
        path = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-B", "-c", program]
        return subprocess.run(command, env=path, capture_output=True, text=True, check=False)

    expected = run(ASKS)
    record = f"{ours}; recorder = code_archive.Recorder(); import package.module; print(recorder.finish()); "
    recorded = run(f"{record}recorder.write(open({target!r}, 'wb'))")
    assert f"{nested}/deep.py" in recorded.stdout, recorded.stderr
    nested.parent.rename(tmp_path / "elsewhere")
    assert "No module named 'package'" in run(ASKS).stderr
    found = run(
        f"{ours}\nfinder = code_archive.Finder({target!r})\n{ASKS}\nfinder.close()\nimport package.nested.no"
    )
    assert found.stdout == expected.stdout != ""
    assert "No module named 'package.nested.no'" in found.stderr


def test_plugins_that_were_imported_before_pytest_started_do_not_make_it_warn(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(): assert 1 == 2")
    program = "from pytest_bpfmaps.vm.guest import preload; preload.preload(); import pytest; pytest.main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "assert 1 == 2" in done.stdout
    assert "1 failed" in done.stdout
    assert "warning" not in done.stdout


TELLS = """
def pytest_collection_modifyitems(session):
    manager = session.config.pluginmanager
    for plugin in manager.get_plugins():
        name = manager.get_name(plugin)
        if not name.isdecimal():  # else the address of an object
            print("plugin", name, sorted(caller.name for caller in manager.get_hookcallers(plugin)))
"""


def test_plugins_that_are_remembered_have_the_hooks_and_fixtures_that_they_have(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(TELLS)
    ahead = "from pytest_bpfmaps.vm.guest import lookup_caches, preload; preload.preload(); "
    finish = "import _pytest.tmpdir; print('Path' in dir(_pytest.tmpdir)); "
    forget = "lookup_caches.forget_plugins(); print('Path' in dir(_pytest.tmpdir))"
    session = "import pytest; pytest.main(['-p', 'pytester', '--fixtures', '-q', '-s']); "

    def run(program: str) -> list[str]:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    expected = run(session)
    assert any("tmp_path" in line for line in expected)
    assert sum(line.startswith("plugin ") for line in expected) > 30
    remembered = run(ahead + session + finish + forget)
    assert remembered[-2:] == ["False", "True"]
    told = [sorted(one for one in lines if " ran in " not in one) for lines in (expected, remembered[:-2])]
    assert told[0] == told[1]


CONFIGURES = """
import os, sys
import _pytest.config as pytest_config

made = []
class Manager(pytest_config.PytestPluginManager):
    def __init__(self):
        made.append(self)
        super().__init__()

pytest_config.PytestPluginManager = Manager
arguments, environment, folder = eval(sys.argv[1])
os.chdir(folder)
os.environ.update(environment)
config = pytest_config._prepareconfig(arguments, None)
manager = config.pluginmanager
plugins = [name for name, _ in manager.list_name_plugin() if not name.isdecimal()]
hooks = {name: [one.plugin_name for one in caller.get_hookimpls() if not one.plugin_name.isdecimal()]
         for name, caller in sorted(vars(manager.hook).items()) if hasattr(caller, "get_hookimpls")}
facts = [plugins, hooks, config.invocation_params, config.rootpath, config.inipath, config.args_source]
facts += [config.args, sorted(vars(config.option).items())]
facts += [config.getini("cache_dir"), config.getini("addopts")]
print(facts)
print(len(made))
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "remembered"),
    [
        ([], {}, True),
        (["-p", "pytester", "--tb=short"], {"PYTEST_ADDOPTS": "-v -p no:doctest", "COLUMNS": "20"}, True),
        (["-p", "no:doctest"], {}, False),
        (["-pno:unittest"], {}, False),
        ([], {"TOX_ENV_DIR": "/tox"}, False),
    ],
)
def test_a_configuration_that_is_remembered_is_that_of_its_run(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], remembered: bool
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    ahead = "from pytest_bpfmaps.vm.guest import preload; preload.preload()\n"

    def run(program: str) -> list[str]:
        command = [sys.executable, "-c", program, repr((arguments, environment, str(tmp_path)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.splitlines() or [done.stderr]

    expected, found = run(CONFIGURES), run(ahead + CONFIGURES)
    assert expected[1:] == ["1"]
    assert found == [expected[0], "0" if remembered else "1"]
    assert str(tmp_path) in expected[0]


def test_qemu_refuses_in_its_own_words(tmp_path: Path) -> None:
    nothing = Kernel("none", "0", tmp_path / "image", None, None, None, "nowhere", "x86_64")
    with warm.in_memory() as memory:
        shape = MachineConfig(1, "64M")
        with warm._power_on(nothing, shape, [*warm._ram(shape, memory, "on"), "-S"], [memory]) as machine:
            monitor = machine.monitor()
            assert monitor.call("query-status")["status"] == "prelaunch"
            with pytest.raises(VmError, match=r"QEMU refused migrate-incoming: .*-incoming"):
                monitor.restore(memory, from_file=False)
            machine.process.kill()
            machine.process.wait()
            with pytest.raises(VmError, match="cannot control QEMU"):
                monitor.call("query-status")
    assert Monitor.close(monitor) is None


def test_the_manifest_is_json(tmp_path: Path) -> None:
    state = warm.SavedState(tmp_path)
    state.memory.touch()
    state.devices.touch()
    state.write_manifest("6.1", "6.1.0", ["/bin/sh"])
    assert json.loads((tmp_path / "manifest.json").read_text())["kernel"] == "6.1"
