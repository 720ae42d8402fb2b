"""Tests private names of other projects: a message says which name a new release has removed."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _pytest.config
import execnet
import pytest
import xdist.dsession
import xdist.remote
import xdist.scheduler
import xdist.workermanage
from _pytest.assertion.rewrite import AssertionRewritingHook
from elftools.elf.elffile import ELFFile
from elftools.elf.hash import ELFHashSection, GNUHashSection
from execnet import gateway_base
from execnet.gateway import RInfo

from pytest_bpfmaps.compat import (
    elftools_names,
    pytest_benchmark_names,
    pytest_names,
    python_names,
    watchfiles_names,
    xdist_names,
)

PLUGINS = Path(sys.prefix, "other-plugins")


def names_of(function: Callable[..., Any]) -> set[str]:
    """Returns the attributes and globals that its code, and the functions inside it, name."""
    codes, found = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        found |= {*code.co_names}
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return found


def test_the_folder_of_temporary_files_is_known(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert hasattr(pytestconfig, "_tmp_path_factory"), "pytest's Config has no _tmp_path_factory"
    assert pytest_names.temporary_folder(pytestconfig) == tmp_path_factory.getbasetemp()


def test_the_terminal_writer_keeps_its_file_in_an_attribute(pytestconfig: pytest.Config) -> None:
    writer = pytestconfig.get_terminal_writer()
    assert hasattr(writer, "_file"), "pytest's TerminalWriter has no _file: see redirect_terminal"
    before, there = writer._file, io.StringIO()
    try:
        pytest_names.redirect_terminal(pytestconfig, there)
        writer.line("a line")
    finally:
        pytest_names.redirect_terminal(pytestconfig, before)
    assert there.getvalue() == "a line\n", "pytest writes past TerminalWriter._file: see redirect_terminal"


def test_pytest_makes_its_configuration_in_one_function() -> None:
    made = pytest_names.config_maker()
    assert made is _pytest.config.get_config, "pytest has no get_config: see config_maker"
    assert [*inspect.signature(made).parameters][:2] == ["args", "plugins"], (
        "pytest's get_config takes other arguments: see vm/guest/lookup_caches.py"
    )
    assert "get_config" in names_of(_pytest.config._prepareconfig), (
        "pytest does not call get_config by its name: see set_config_maker"
    )


def test_plugins_are_marked_for_rewriting_by_a_method_of_the_hook() -> None:
    with pytest_names.without_rewriting_plugins() as marked:
        AssertionRewritingHook.mark_rewrite("module")
    marked.assert_called_once_with("module")
    assert "mark_rewrite" in names_of(_pytest.config.Config._mark_plugins_for_rewrite), (
        "pytest marks plugins another way: a state takes seconds longer, see without_rewriting_plugins"
    )


@pytest.mark.parametrize(
    "name",
    ["_failed_collection_errors", "_active_nodes", "shuttingdown", "shouldstop", "queue", "report_line"],
)
def test_a_distributed_session_has(name: str) -> None:
    functions = [one for one in vars(xdist.dsession.DSession).values() if inspect.isfunction(one)]
    assert any(name in names_of(function) for function in functions), (
        f"pytest-xdist's DSession has no {name}: see compat/xdist_names.py, Distribution"
    )


def test_a_distributed_session_begins_at_the_start_of_a_session() -> None:
    begins = names_of(xdist.dsession.DSession.pytest_sessionstart)
    assert {"nodemanager", "setup_nodes"} <= begins, "pytest-xdist starts workers elsewhere: see Distribution"
    assert callable(xdist.workermanage.NodeManager.setup_node), "no NodeManager.setup_node: see add_worker"
    assert callable(xdist.workermanage.parse_tx_spec_config), "no parse_tx_spec_config: see asked_workers"


def test_a_worker_talks_through_its_interactor() -> None:
    interactor = xdist.remote.WorkerInteractor
    assert callable(interactor.sendevent), "WorkerInteractor has no sendevent: see matrix/worker.py"
    assert "torun" in names_of(interactor.__init__), "WorkerInteractor has no torun: see wait_for_orders"
    queue = xdist.remote.TestQueue(gateway_base.get_execmodel("main_thread_only"))
    assert xdist_names.is_empty(queue)
    queue.put(1)
    assert not xdist_names.is_empty(queue)
    assert queue.get() == 1


def test_execnet_keeps_what_it_asked_the_other_side_for() -> None:
    assert "_cache_rinfo" in names_of(execnet.Gateway._rinfo), "execnet asks again each time: see tell_facts"
    facts = {"executable": "python", "version_info": (3, 11), "platform": "linux", "cwd": "/", "pid": 0}
    assert RInfo(dict(facts)).platform == "linux"


def test_execnet_ends_the_process_behind_a_gateway() -> None:
    gateway = execnet.makegateway("popen")
    assert {"kill", "wait"} <= {*dir(gateway._io)}, "execnet's Gateway has no _io: see wait_for_end"
    assert xdist_names.process_of(gateway).poll() is None, "execnet's process is elsewhere: see process_of"
    gateway.exit()
    xdist_names.wait_for_end(gateway, 60.0)
    assert not gateway.hasreceiver()


@pytest.mark.parametrize("name", ["get_execmodel", "init_popen_io", "serve"])
def test_execnet_serves_in_a_process_that_is_there(name: str) -> None:
    assert callable(getattr(gateway_base, name, None)), (
        f"execnet.gateway_base has no {name}: see vm/guest/init.py"
    )


def test_execnet_compiles_what_it_is_sent() -> None:
    assert "compile" in names_of(gateway_base.WorkerGateway.executetask), (
        "execnet compiles the worker's source elsewhere: guests start slower, see remember_worker_code"
    )


def test_the_library_of_python_says_where_the_metadata_of_a_package_is() -> None:
    package = importlib.metadata.distribution("pytest")
    assert isinstance(package, importlib.metadata.PathDistribution)
    assert hasattr(package, "_path"), "importlib.metadata keeps the folder elsewhere: see metadata_folder"
    again = importlib.metadata.PathDistribution(python_names.metadata_folder(package))
    assert again.metadata["Name"] == "pytest", "PathDistribution takes something else: see metadata_folder"


def test_the_library_of_python_takes_each_header_of_an_archive_through_one_method() -> None:
    assert hasattr(tarfile.TarInfo, "_proc_member"), "tarfile checks headers elsewhere: see checked_tar"


def test_pyelftools_makes_sections_with_hashes_by_methods_of_its_file() -> None:
    with open(sys.executable, "rb") as file:
        elf = ELFFile(file)
        read = {type(section) for section in elf.iter_sections()}
        assert read & {GNUHashSection, ELFHashSection}, "pyelftools reads no hashes: leave_hash_tables can go"
    with open(sys.executable, "rb") as file:
        elf = ELFFile(file)
        elftools_names.leave_hash_tables(elf)
        left = {type(section) for section in elf.iter_sections()}
    assert not left & {GNUHashSection, ELFHashSection}, (
        "pyelftools makes sections with hashes another way: files are read slower, see leave_hash_tables"
    )


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other plugins are in a folder of their own. ci/setup installs them there."""
    if not PLUGINS.is_dir():
        pytest.skip("ci/setup puts other plugins into .venv/other-plugins")
    monkeypatch.syspath_prepend(PLUGINS)


@pytest.mark.usefixtures("others")
def test_pytest_cov_has_a_controller_for_runs_with_workers() -> None:
    engine = importlib.import_module("pytest_cov.engine")
    assert callable(engine.DistMaster.configure_node), "pytest-cov has no DistMaster: see expect_workers"
    assert "cov_master_host" in inspect.getsource(engine), (
        "pytest-cov tells workers its host by another name: see expect_guest"
    )


@pytest.mark.usefixtures("others")
def test_pytest_timeout_tells_the_limit_of_a_test() -> None:
    plugin = importlib.import_module("pytest_timeout")
    assert callable(plugin._get_item_settings), "pytest-timeout has no _get_item_settings: see time_limit"


@pytest.mark.usefixtures("others")
def test_pytest_rerunfailures_has_a_server_that_workers_connect_to() -> None:
    plugin = importlib.import_module("pytest_rerunfailures")
    assert callable(plugin.ServerStatusDB), "pytest-rerunfailures has no ServerStatusDB: see settle_in_guest"
    assert "sock_port" in inspect.getsource(plugin), (
        "it tells workers its port by another name: settle_in_guest"
    )


def test_watchfiles_tells_a_change_as_soon_as_it_watches(tmp_path: Path) -> None:
    watcher = watchfiles_names.start_watching([str(tmp_path)])
    (tmp_path / "file").touch()
    found = watcher.watch(400, 10, 60_000, None)
    assert isinstance(found, set), "watchfiles' RustNotify.watch returns no set: see watch/notifier.py"
    assert str(tmp_path / "file") in {path for _, path in found}


@pytest.mark.usefixtures("others")
def test_pytest_benchmark_keeps_figures_in_a_list_of_its_session() -> None:
    if not (PLUGINS / "pytest_benchmark").is_dir():
        pytest.skip("ci/setup puts other plugins into .venv/other-plugins")
    session = importlib.import_module("pytest_benchmark.session")
    assert "benchmarks" in names_of(session.BenchmarkSession.__init__), "no list of benchmarks: see hand_over"
    stats = importlib.import_module("pytest_benchmark.stats")
    assert [*inspect.signature(stats.Metadata).parameters] == ["fixture", "iterations", "options"], (
        "pytest-benchmark makes figures another way: see hand_over"
    )
    read = {*names_of(stats.Metadata.__init__), *names_of(stats.Metadata.has_error.fget)} - {"Stats", "stats"}
    absent = read - set(pytest_benchmark_names.Figure.__dataclass_fields__) - {"options", "fixture"}
    assert absent == set(), f"pytest-benchmark reads {absent} of its fixture: Figure needs them"
