"""The options of coverage, costs, and the use of maps. All else is imported when somebody asks for them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import named_properties

# Option, kind in the configuration file, default, how it is given on the command line, help.
_COVERAGE: tuple[tuple[str, Any, Any, dict[str, Any], str], ...] = (
    (
        "cov",
        "args",
        [],
        {"action": "append", "nargs": "?", "const": "", "metavar": "GLOB"},
        "measure which lines of BPF programs the tests run; of sources that match GLOB (a path from the root "
        "folder, or a name; default: all below the root folder). May be given several times",
    ),
    (
        "cov-engine",
        "string",
        "auto",
        {"metavar": "ENGINE"},
        "what counts: counters (of clang), blocks (of an emulated guest), or auto: counters if possible, "
        "else blocks",
    ),
    (
        "cov-report",
        "args",
        ["term"],
        {"action": "append", "metavar": "KIND"},
        "a report of it: term, term-missing, html:DIR, lcov:FILE, json:FILE, xml:FILE, or none. May be given "
        "several times (default: term)",
    ),
    (
        "cov-fail-under",
        "string",
        "",
        {"metavar": "PERCENT"},
        "fail the run when less than PERCENT of all lines ran",
    ),
    (
        "cov-context",
        "string",
        "",
        {"metavar": "CONTEXT"},
        "test: remember which test ran a line, for html and json",
    ),
)
_COSTS: tuple[tuple[str, Any, Any, dict[str, Any], str], ...] = (
    (
        "cost",
        "string",
        "",
        {"metavar": "FILE"},
        "record in FILE what the verifier says of each program of the run, by kernel",
    ),
    (
        "cost-check",
        "string",
        "",
        {"metavar": "FILE"},
        "fail the run when a program costs more than in FILE, or came close to a limit of the kernel. FILE "
        "is of --bpf-cost, or veristat's CSV",
    ),
    (
        "cost-tolerance",
        "args",
        ["5"],
        {"action": "append", "metavar": "PERCENT|GLOB=PERCENT"},
        "how much a figure may grow: of all programs, or of those that GLOB fits (default: 5)",
    ),
    (
        "cost-limit",
        "string",
        "80",
        {"metavar": "PERCENT"},
        "the share of the kernel's limits that a program may reach: 1,000,000 instructions, 512 bytes of "
        "stack (default: 80)",
    ),
)
_REPORT = (
    "report",
    "string",
    "",
    {"metavar": "DIR"},
    "write a page about the run, DIR/index.html: kernels, failures, skips, costs, maps, and coverage where "
    "--bpf-cov is given. DIR keeps a record of each run, for the charts",
)
_SWITCHES = (
    ("cov-append", "add to what earlier runs with this option counted"),
    ("cov-mcdc", "also measure which conditions were seen to decide alone (MC/DC); needs clang 18 or later"),
    (
        "cost-update",
        "renew the file of --bpf-cost-check, where programs differ from it, and fail for no growth",
    ),
    (
        "map-usage",
        "show at the end which maps lost data, were never used, are much too large, or had more entries than "
        "a test expects; with -v all maps",
    ),
    (
        "map-warnings",
        "warn of faults in what programs do with maps: additions that are lost, updates that nobody checks, "
        "…",
    ),
)
BENCHMARK = "bpf_benchmark"
"""The property of a report with figures of `bpf_benchmark`, as JSON."""
_STORED: pytest.StashKey[tuple[int, str]] = pytest.StashKey()  # what pytest-benchmark took, or why nothing
_ASKING = ("bpf_cost", "bpf_cost_check", "bpf_cost_update")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the options, and for each the key of the configuration file."""
    group = parser.getgroup("bpfmaps")
    for name, kind, default, given, text in (*_COVERAGE, *_COSTS, _REPORT):
        group.addoption(f"--bpf-{name}", default=None, help=text + ".", **given)
        parser.addini(f"bpf_{name.replace('-', '_')}", text, type=kind, default=default)
    for name, text in _SWITCHES:
        group.addoption(f"--bpf-{name}", action="store_true", default=None, help=text + ".")
        parser.addini(f"bpf_{name.replace('-', '_')}", text, type="bool", default=False)
    group.addoption(
        "--no-bpf-cov",
        action="store_true",
        dest="bpf_no_cov",
        help="measure no coverage, whatever else says so.",
    )
    text = "only show how two files of --bpf-cost, or of veristat, differ; run no test."
    group.addoption("--bpf-cost-compare", nargs=2, metavar="FILE", default=None, help=text)
    text = "warnings of --bpf-map-warnings that nobody wants; each line: REGEX  # REASON"
    parser.addini("bpf_allow_map_warnings", text, type="linelist", default=[])
    text = "variants to record of each object that has their globals; each line: NAME: GLOBAL=VALUE, …"
    parser.addini("bpf_cost_variants", text, type="linelist", default=[])


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Compares two files instead of running tests."""
    files = config.getoption("bpf_cost_compare")
    if files is None:
        return None
    from pytest_bpfmaps.report.cost_session import compare

    return compare(config, files)


def pytest_configure(config: pytest.Config) -> None:
    """Measures coverage, and records costs, when somebody asks for it."""
    config.addinivalue_line(
        "markers",
        "bpf_cost_variants(**variants): with --bpf-cost, record the objects of the test also with these "
        "globals: large={'rounds': 100}.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_map_entries(**most): with --bpf-map-usage, name the maps of the test that have more entries at "
        "its end: connections=10.",
    )
    has_page = bool(config.getoption("bpf_report") or config.getini("bpf_report"))
    shows_maps = bool(config.getoption("bpf_map_usage") or config.getini("bpf_map_usage"))
    if has_page or shows_maps:
        from pytest_bpfmaps.report import map_usage_session

        map_usage_session.begin(config, shown=shows_maps)
    config.addinivalue_line(
        "markers",
        "bpf_map_warnings(*regexes, reason): warnings of --bpf-map-warnings that the test does not give.",
    )
    if config.getoption("bpf_map_warnings") or config.getini("bpf_map_warnings"):
        from pytest_bpfmaps.report import map_warnings_session

        map_warnings_session.begin(config)
    if has_page or any(config.getoption(name) or config.getini(name) for name in _ASKING):
        from pytest_bpfmaps.report import cost_session

        cost_session.begin(config)
    if has_page and not hasattr(config, "workerinput"):
        from pytest_bpfmaps.report import page_session

        page_session.begin(config)
    if config.getoption("bpf_cov") is None and not config.getini("bpf_cov"):
        return
    from pytest_bpfmaps.matrix.measuring import is_measured

    if is_measured(config):
        from pytest_bpfmaps.report import coverage_session

        coverage_session.begin(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Has a guest count instructions from the start, if a test wants it."""
    if hasattr(session.config, "workerinput"):
        from pytest_bpfmaps.matrix.measuring import counts_instructions

        if counts_instructions(session.items):
            from pytest_bpfmaps.cost.executed_instructions import begin

            begin()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # pytest-benchmark's own wrapper takes what is there then
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Gives what `bpf_benchmark` measured to pytest-benchmark, where that is loaded."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    found = _benchmarks(terminal) if terminal is not None else []
    if found and hasattr(session.config, "_benchmarksession"):
        from pytest_bpfmaps.report import benchmark_storage

        session.config.stash[_STORED] = benchmark_storage.store(session.config, found)
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what `bpf_benchmark` measured, where pytest-benchmark does not."""
    found = _benchmarks(terminalreporter)
    if found:
        from pytest_bpfmaps.report import benchmark_table

        stored, note = terminalreporter.config.stash.get(_STORED, (0, ""))
        benchmark_table.show(terminalreporter, [] if stored else found, note)


def _benchmarks(terminal: Any) -> list[tuple[str, Any]]:
    """Returns the tests that measured something, with their figures."""
    reports = (each for category in terminal.stats.values() for each in category)
    calls = (each for each in reports if getattr(each, "when", "") == "call")
    return [
        (each.nodeid, value) for each in calls for name, value in named_properties(each) if name == BENCHMARK
    ]
