"""The options of BPF programs' coverage. Everything else is imported when somebody asks for coverage."""

from __future__ import annotations

from typing import Any

import pytest

# Option, kind in the configuration file, default, how it is given on the command line, help.
_OPTIONS: tuple[tuple[str, Any, Any, dict[str, Any], str], ...] = (
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
        "what counts: counters (of clang), blocks (of an emulated guest), or auto: counters where they can",
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the options, and for each the key of the configuration file."""
    group = parser.getgroup("bpfmaps")
    for name, kind, default, given, text in _OPTIONS:
        group.addoption(f"--bpf-{name}", default=None, help=text + ".", **given)
        parser.addini(f"bpf_{name.replace('-', '_')}", text, type=kind, default=default)
    text = "add to what earlier runs with this option counted"
    group.addoption("--bpf-cov-append", action="store_true", default=None, help=text + ".")
    parser.addini("bpf_cov_append", text, type="bool", default=False)
    group.addoption(
        "--no-bpf-cov",
        action="store_true",
        dest="bpf_no_cov",
        help="measure no coverage, whatever else says so.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Measures coverage when somebody asks for it."""
    if config.getoption("bpf_cov") is None and not config.getini("bpf_cov"):
        return
    from pytest_bpfmaps.matrix.measuring import is_measured

    if is_measured(config):
        from pytest_bpfmaps.report import coverage_session

        coverage_session.begin(config)
