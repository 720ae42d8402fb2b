"""An argument of the wrong kind is one clear error, and the remedy that it names works."""

import ast
import errno

import pytest

from pytest_bpfmaps import AttachError, CompileError, LoadError, MapOverflowError, MapTypeError

CODE = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int verdict(struct xdp_md *ctx) { return RESULT; }
SEC("tc") int filter(struct __sk_buff *ctx) { return 0; }
"""


@pytest.mark.parametrize("wrong", [["RESULT=2"], "RESULT=2"])
def test_defines_that_are_no_mapping(bpf, wrong):
    with pytest.raises(CompileError, match="not a dict") as error:
        bpf.compile(code=CODE, defines=wrong)
    remedy = str(error.value).rpartition("defines=")[2]
    bpf.compile(code=CODE, defines=ast.literal_eval(remedy))


def test_true_as_a_macro_is_1(bpf):
    assert bpf.load(code=CODE, defines={"RESULT": True}).programs.verdict.run(bytes(64)).retval == 1


@pytest.mark.parametrize("argument", ["globals", "max_entries", "maps", "reuse", "programs"])
def test_settings_that_are_no_mapping(bpf, argument):
    with pytest.raises(LoadError, match=rf"(?s){argument}= is int, not a dict.*-> give a dict"):
        bpf.load(code=CODE, defines={"RESULT": 2}, **{argument: 3})


@pytest.mark.parametrize("type", ["hash", "percpu_hash"])
def test_flags_that_are_no_number(bpf, type):
    counts = bpf.create_map(type, key="u32", value="u32", max_entries=4)
    for call in (
        lambda: counts.update_elem(1, 2, flags="BPF_NOEXIST"),
        lambda: counts.update_batch({1: 2}, flags="BPF_NOEXIST"),
        lambda: counts.lookup_elem(1, flags="BPF_NOEXIST"),
    ):
        with pytest.raises(MapTypeError, match="import BPF_NOEXIST; flags=BPF_NOEXIST"):
            call()
    with pytest.raises(MapTypeError, match="they are float, not a number"):
        counts.update_elem(1, 2, flags=1.0)
    for number in (-1, 1 << 64):
        with pytest.raises(MapOverflowError, match="64 bits"):
            counts.update_elem(1, 2, flags=number)
    assert not counts


def test_flags_of_a_queue(bpf):
    queue = bpf.create_map("queue", value="u32", max_entries=1)
    with pytest.raises(MapTypeError, match="cannot use flags"):
        queue.push(1, "BPF_EXIST")


@pytest.mark.parametrize("argument", ["max_entries", "flags", "extra", "key"])
def test_numbers_of_a_new_map(bpf, argument):
    asked = {"key": "u32", "value": "u32", "max_entries": 4}
    with pytest.raises(MapTypeError, match="float, not a number"):
        bpf.create_map("hash", **asked | {argument: 4.5})
    with pytest.raises(MapOverflowError):
        bpf.create_map("hash", **asked | {argument: -1})


@pytest.mark.bpf_requires("xdp", "tc")
def test_an_index_that_no_interface_of_the_namespace_has(bpf, bpf_netns):
    there = bpf_netns()
    programs = bpf.load(code=CODE, defines={"RESULT": 2}).programs
    for wrong in (0, 9999, -1):
        for program, how in ((programs.verdict, {}), (programs.filter, {"direction": "ingress"})):
            with pytest.raises(AttachError, match=rf"no interface with the index {wrong}\n.*lo") as error:
                program.attach(interface=wrong, netns=there, **how)
            assert error.value.errno == errno.ENODEV
    with programs.verdict.attach(interface=1, netns=there, mode="skb"):
        pass
