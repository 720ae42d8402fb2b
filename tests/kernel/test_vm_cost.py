"""Tests costs and verdicts in guests: each kernel has figures of its own."""

from __future__ import annotations

import json

import pytest
from build_agents import AGENTS, build_agent
from caches import CACHE
from cost_checks import assert_turns_has_grown

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.cost.cost_file import read
from pytest_bpfmaps.cost.costs import Costs
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

KERNELS = [kernel.name for kernel in Catalogue()][:2]
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
extern int LINUX_KERNEL_VERSION __kconfig;

SEC("xdp") int turns(struct xdp_md *ctx)
{
    unsigned sum = 0;
    if (LINUX_KERNEL_VERSION >= NEWER)
        for (unsigned i = 0; i < ROUNDS; i++)
            sum += bpf_get_prandom_u32() & i; // the work
    return sum & 1;
}
SEC("xdp") int unsafe(struct xdp_md *ctx)
{
    return *(char *)(long)ctx->data; // not checked
}
"""

TESTS = """
def test_it(bpf):
    bpf.load("turns.bpf.c", programs=["turns"])

def test_agent(bpf):
    bpf.start(["./agent", "load", bpf.compile("network.bpf.c"), "wait"], ready="waiting", timeout=60)
"""


def source(rounds: int) -> str:
    """Returns the program; only the second kernel walks its loop."""
    major, minor = KERNELS[1].split(".")[:2]
    return SOURCE.replace("NEWER", hex(int(major) << 16 | int(minor) << 8)).replace("ROUNDS", str(rounds))


@pytest.mark.skipif(len(KERNELS) < 2, reason="the catalogue has fewer than two kernels")
def test_a_regression_of_one_kernel(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    build_agent(pytester.path)
    (pytester.path / "network.bpf.c").write_text((AGENTS / "network.bpf.c").read_text())
    pytester.makepyfile(TESTS)

    def run(*options: str, rounds: int) -> pytest.RunResult:
        (pytester.path / "turns.bpf.c").write_text(source(rounds))
        kernels = f"--bpf-kernel={','.join(KERNELS)}"
        result = pytester.runpytest_subprocess(kernels, "--bpf-vm-timeout=120", *options)
        result.assert_outcomes(passed=4 if "--bpf-cost=costs" in options else 2)
        return result

    result = run("--bpf-cost=costs", rounds=20)
    assert result.ret == 0
    costs = read(pytester.path / "costs")
    assert_agent_is_counted({key: cost for key, cost in costs.items() if key.object == "agent"}, result)
    old, new = (each for each in costs.items() if each[0].object != "agent")
    assert [old[0].kernel, new[0].kernel] == KERNELS
    assert new[1].figures["insns"] > old[1].figures["insns"] + 20

    result = run("--bpf-cost-check=costs", "-k", "not agent", rounds=60)
    assert_turns_has_grown(result, KERNELS[1], SOURCE, of=2)
    result.stdout.no_re_match_line(rf"turns\.bpf\.c: turns +{KERNELS[0]} ")


def assert_agent_is_counted(costs: Costs, result: pytest.RunResult) -> None:
    """Asserts that the programs of the agent have the figures that each kernel tells."""
    for kernel in KERNELS:
        of_kernel = [cost for key, cost in costs.items() if key.kernel == kernel]
        told = tuple(map(int, kernel.split(".")[:2])) >= (5, 16)
        assert [("insns" in cost.figures) for cost in of_kernel] == [told] * len(of_kernel) != []
        assert all(cost.figures["translated"] > 0 for cost in of_kernel)
        note = f"[{kernel}] agent: the instructions of an agent's programs are unknown before Linux 5.16"
        assert (note in result.stdout.str()) != told


@pytest.mark.skipif(len(KERNELS) < 2, reason="the catalogue has fewer than two kernels")
def test_verdicts_of_guests(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "turns.bpf.c"
    path.write_text(source(30))
    code = main(["verify", str(path), "--json", "--timeout=120", f"--kernel={','.join(KERNELS)}"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["kernels"]) == (1, KERNELS)
    cells = {(each["program"], each["kernel"]): each for each in found["programs"]}
    assert len(cells) == len(found["programs"]) == 4
    old, new = (cells["turns", kernel] for kernel in KERNELS)
    assert old["verdict"] == new["verdict"] == "accepted"
    assert new["instructions"] > old["instructions"] + 30
    line = source(30).splitlines().index("    return *(char *)(long)ctx->data; // not checked") + 1
    for kernel in KERNELS:  # kernels before 6.10 do not tell the number of the line
        refused = cells["unsafe", kernel]
        assert (refused["verdict"], refused["line"]) == ("refused", line)
        assert refused["text"] == "return *(char *)(long)ctx->data; // not checked"
        assert "data_end" in refused["fix"]
