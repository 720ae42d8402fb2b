"""Fixtures that several files of this folder use."""

import subprocess
from functools import partial

import pytest
from alike_keys import filled
from build_agents import agent_binary
from caches import cache_of_this_run
from stack_traces import load_tracer

__all__ = ["agent_binary", "cache_of_this_run", "filled"]  # fixtures

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def load_code(bpf):
    """Loads C text after the usual includes and licence."""

    def load(code, **options):
        return bpf.load(code=HEAD + code, **options)

    return load


@pytest.fixture
def make_map(load_code):
    """Makes a map of a kernel type, with C types for key and value."""

    def make(type, key="__u32", value="__u64", max_entries=8, prologue="", **options):
        code = f"""
        {prologue}
        struct {{
            __uint(type, BPF_MAP_TYPE_{type.upper()});
            __uint(max_entries, {max_entries});
            __type(key, {key});
            __type(value, {value});
        }} the_map SEC(".maps");
        """
        return load_code(code, **options).maps.the_map

    return make


@pytest.fixture
def veth(bpf_netns):
    """Makes two namespaces with a cable between them."""
    return bpf_netns("left").veth_to(bpf_netns("right"))


@pytest.fixture
def trace(load_code):
    """Loads and attaches a tracer of stacks for a process: `load_tracer` without its first argument."""
    return partial(load_tracer, load_code)


@pytest.fixture
def bpffs(tmp_path):
    """A bpf file system of the test, which all processes see."""
    made = tmp_path / "bpffs"
    made.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", made], check=True)
    yield made
    subprocess.run(["umount", made], check=True)
