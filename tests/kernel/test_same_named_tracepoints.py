"""Tests tracepoints whose name two modules share: i915 and xe both have those of Intel's display driver."""

import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps import AttachError

NAME = "intel_pipe_enable"
COUNT = 'long runs; SEC("SECTION") int count(void *ctx) { runs++; return 0; }'


@pytest.fixture
def modules():
    """Returns the loaded ones of the two modules; some kernels have one, and some have none."""
    wanted = {"i915", "xe"}
    for module in sorted(wanted):
        subprocess.run(["modprobe", module], check=False, timeout=120)
    symbols = Path("/proc/kallsyms").read_text().splitlines()
    having = {line.split("[")[1].rstrip("]") for line in symbols if f" __traceiter_{NAME}\t[" in line}
    assert having <= wanted
    return having


@pytest.mark.bpf_requires("raw_tp/sched_switch", "tp_btf/sched_switch")
@pytest.mark.parametrize("section", ["raw_tp", "tp_btf"])
def test_a_name_of_two_modules(load_code, modules, section):
    code = COUNT.replace("SECTION", f"{section}/{NAME}")
    if len(modules) == 2:
        told = f"(?s)2 tracepoints .* '{NAME}': of (i915 and of xe|xe and of i915)"
        ways = f'SEC\\("tp/i915/{NAME}"\\) or SEC\\("tp/xe/{NAME}"\\)'
        with pytest.raises(AttachError, match=f"{told}.*-> say whose it is.*{ways}"):
            load_code(code).programs.count.attach()
    elif modules:
        obj = load_code(code)
        with obj.programs.count.attach():
            assert obj.programs.count.attached


@pytest.mark.bpf_requires("raw_tp/sched_switch", "tracepoint")
def test_its_category_says_which_is_meant(load_code, modules):
    for module in modules:
        obj = load_code(COUNT.replace("SECTION", f"tp/{module}/{NAME}"))
        enabled = Path(f"/sys/kernel/tracing/events/{module}/{NAME}")
        assert enabled.is_dir()
        with obj.programs.count.attach() as link:
            assert module in str(link)
    if len(modules) == 2:
        program = load_code(COUNT.replace("SECTION", "raw_tp")).programs.count
        with pytest.raises(AttachError, match=f"2 tracepoints .* '{NAME}'"):
            program.attach(tracepoint=NAME)
