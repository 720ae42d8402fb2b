"""Makes the reports of a large run, as guests send them, with all that a page shows.

As a plugin of pytest it gives them to the run that loads it: ``-p generated_run``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.cost.costs import Cost, Costs, Key
from pytest_bpfmaps.cost.map_usage import Key as MapKey
from pytest_bpfmaps.cost.map_usage import Usage, Usages
from pytest_bpfmaps.coverage.data import Branch, Coverage, Measured
from pytest_bpfmaps.coverage.view import View
from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY, MISSING_PROPERTY
from pytest_bpfmaps.report.page import runs
from pytest_bpfmaps.report.stash_keys import ALL_COSTS, COVERAGE, USAGES

KERNELS = ["host", "5.10", "5.15", "6.1", "6.6", "6.12", "7.0", "7.2"]
FEATURES = ["helper bpf_loop", "map type arena", "kfunc bpf_rdonly_cast", "CONFIG_DEBUG_INFO_BTF"]
_NONE = {"full": 0, "memory": 0, "busy": 0}


def reports(tests: int, kernels: list[str], *, seed: int = 7) -> list[pytest.TestReport]:
    """Returns a report for each test and kernel: some fail on some kernels, some lack a feature."""
    chance = random.Random(seed)
    made = []
    for number in range(tests):
        file = f"tests/area_{number // 400}/test_part_{number // 40}.py"
        name = f"{file}::test_that_it_does_what_number_{number}_says"
        fails = chance.random() < 0.01
        lacks = chance.choice(FEATURES) if chance.random() < 0.06 else None
        since = chance.randrange(len(kernels))
        for at, kernel in enumerate(kernels):
            failed = fails and at >= since
            made.append(_report(name, kernel, failed, lacks if lacks and at < since else None, number))
    return made


def _report(name: str, kernel: str, failed: bool, lacks: str | None, number: int) -> pytest.TestReport:
    properties = [(KERNEL_PROPERTY, kernel)] + ([(MISSING_PROPERTY, lacks)] if lacks else [])
    file, _, function = name.partition("::")
    outcome: Any = "failed" if failed else "skipped" if lacks else "passed"
    longrepr: Any = None
    sections = []
    if failed:
        longrepr = "\n".join(
            [
                f"    def {function}(bpf):",
                *(f"        step_{step} = bpf.load('program.bpf.c')  # and more" for step in range(20)),
                f">       assert counter.maps.count[{number}] == 1",
                "E       AssertionError: the program counted 0 < 1 & nothing else",
                f"E         key {number}: 0 on kernel {kernel}",
                "",
                f"{file}:{number + 1}: AssertionError",
            ]
        )
        log = "\n".join(f"{at}: (79) r1 = *(u64 *)(r10 -{8 * (at % 60)})" for at in range(60))
        sections = [("Captured stdout call", "out <b>\n" * 10), ("BPF verifier log", log)]
    elif lacks:
        longrepr = (file, 3, f"Skipped: kernel {kernel} has no {lacks}")
    return pytest.TestReport(
        f"{name}[{kernel}]",
        (file, number, f"{function}[{kernel}]"),
        {},
        outcome,
        longrepr,
        "call",
        sections,
        user_properties=properties,
    )


def costs(programs: int, kernels: list[str], *, grown: float = 1.0) -> Costs:
    """Returns what programs cost; on newer kernels some cost more, and every seventh has `grown`."""
    made: Costs = {}
    for number in range(programs):
        for at, kernel in enumerate(kernels):
            insns = (number + 1) * 97 * (1 + (at // 3 if number % 4 == 0 else 0))
            insns = round(insns * grown) if number % 7 == 0 else insns
            figures = {"insns": insns, "states": insns // 9, "peak": insns // 12, "translated": 640}
            made[Key(f"bpf/object_{number // 3}.bpf.c", f"program_{number}", "-", kernel)] = Cost(
                figures=figures, stack=(8 * (number % 40), 16)
            )
    return made


def usages(maps: int, kernels: list[str]) -> Usages:
    """Returns how full maps were: all kinds of findings."""
    made: Usages = {}
    for number in range(maps):
        for kernel in kernels:
            test = f"tests/test_maps.py::test_fills_{number}"
            failed = {**_NONE, "full": 3} if number % 9 == 0 else _NONE
            entries = [0, 512, 1024, 3][number % 4]
            losing = {test: 3} if number % 9 == 0 else {}
            made[MapKey(f"bpf/object_{number // 3}.bpf.c", f"map_{number}", kernel)] = Usage(
                "hash", 1024, test, entries, memory=number << 10, failed=failed, updated=True, losing=losing
            )
    return made


def coverage(folder: Path, files: int, kernels: list[str], *, lines: int = 120) -> View:
    """Writes sources below `folder`, and returns what was counted of their lines."""
    made = Coverage()
    for number in range(files):
        source = folder / "bpf" / f"object_{number}.bpf.c"
        source.parent.mkdir(exist_ok=True)
        source.write_text("".join(f"\tcount += {line}; /* <{line}> */\n" for line in range(lines)))
        for kernel in kernels:
            counted = made.kernel(kernel).file(str(source))
            counted.lines.update({n: (n * 7 + number) % 11 % 4 for n in range(1, lines + 1) if n % 5})
            counted.branches.update(
                {Branch(n, "3-9", way): n % 3 for n in range(1, lines, 9) for way in ("true", "false")}
            )
            made.kernel(kernel).programs[Measured(source.name, f"program_{number}", "counters")] = 1
    made.kernel(kernels[0]).programs[
        Measured("agent.bpf.o", "watch", "", "no source of it was compiled here")
    ] = 1
    return View(made, folder)


def write_page(folder: Path, tests: int, kernels: list[str], *, earlier: int = 12) -> Path:
    """Returns the page of a run of pytest with these tests, and with records of earlier runs."""
    (folder / "pytest.toml").write_text("[pytest]\n")
    (folder / "test_plain.py").write_text("def test_plain(): pass\n")
    begin = datetime(2026, 3, 1, 8, tzinfo=UTC)
    for number in range(earlier):
        counts = {k: {"passed": tests, "failed": number % 4 * tests // 20, "skipped": 2} for k in kernels}
        percents = {"": 70.0 + number, **{k: 70.0 + number - at % 3 for at, k in enumerate(kernels)}}
        cost = costs(30, kernels, grown=1 + 0.02 * number)
        runs.keep(
            folder / "out", runs.Run(begin + timedelta(hours=13 * number), 60.0, counts, percents, cost)
        )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "generated_run", "-p", "no:cacheprovider"]
    environment = os.environ | {
        "GENERATED_TESTS": str(tests),
        "GENERATED_KERNELS": " ".join(kernels),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [*command, "--bpf-report=out"], cwd=folder, env=environment, capture_output=True, check=False
    )
    page = folder / "out" / "index.html"
    assert page.exists(), done.stdout.decode() + done.stderr.decode()
    return page


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Gives all of it to the plugins that a run has."""
    if "GENERATED_TESTS" not in os.environ:
        return
    config, kernels = session.config, os.environ["GENERATED_KERNELS"].split()
    for report in reports(int(os.environ["GENERATED_TESTS"]), kernels):
        for name in ("bpfmaps-kernels", "bpfmaps-page"):
            plugin: Any = config.pluginmanager.get_plugin(name)
            plugin.pytest_runtest_logreport(report)
    config.stash[ALL_COSTS].update(costs(30, kernels, grown=1.3))
    config.stash[USAGES].update(usages(36, kernels))
    config.stash[COVERAGE] = coverage(config.rootpath, 10, kernels)
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
