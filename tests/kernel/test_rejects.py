"""Tests bpf.rejects: the program that the verifier must refuse, and the message that it must give."""

import re

import pytest

from pytest_bpfmaps import BpfError, CompileError, ExpectationError, VerifierError

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
BAD = HEAD + 'SEC("xdp") int prog(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }'
GOOD = HEAD + 'SEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }'


def test_a_rejected_program(bpf):
    error = bpf.rejects("invalid access to packet", r"^R\d .* outside of the", code=BAD)
    assert isinstance(error, VerifierError)
    assert "outside of the" in error.log


def test_without_patterns_any_rejection_will_do(bpf, tmp_path):
    source = tmp_path / "bad.bpf.c"
    source.write_text(BAD)
    assert bpf.rejects(source).errno
    assert bpf.rejects(source, re.compile("INVALID ACCESS", re.IGNORECASE)).log


def test_an_accepted_program(bpf):
    with pytest.raises(ExpectationError) as caught:
        bpf.rejects("anything", code=GOOD)
    first, *_, last = str(caught.value).splitlines()
    assert re.fullmatch(r"the verifier accepted \S+: this test expects that it rejects this object", first)
    assert "processed 2 insns" in str(caught.value)
    assert last == ("  -> make the program break the rule that this test is about, or expect that it loads")
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, BpfError)


def test_a_pattern_that_is_missing(bpf):
    with pytest.raises(ExpectationError) as caught:
        bpf.rejects("invalid access", "reference leak", code=BAD)
    first, *rest = str(caught.value).splitlines()
    assert re.fullmatch(
        r"the verifier's log lacks 'reference leak' for program 'prog' of \S+: nothing matches it after "
        r"the match of 'invalid access' in line \d+",
        first,
    )
    assert any("outside of the" in line for line in rest)
    assert "outside of the" in caught.value.log


def test_patterns_in_the_wrong_order(bpf):
    with pytest.raises(ExpectationError, match=r"it is only in line \d+, not after the match of"):
        bpf.rejects("outside of the", "invalid access to packet", code=BAD)


def test_options_of_load_are_taken(bpf):
    code = (
        HEAD
        + """
    const volatile int bad = 0;
    SEC("xdp") int prog(struct xdp_md *ctx) { return bad ? *(int *)(long)ctx->data : XDP_PASS; }
    SEC("xdp") int other(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }
    """
    )
    with pytest.raises(ExpectationError, match="accepted"):
        bpf.rejects(code=code, programs=["prog"])
    assert "'prog'" in bpf.rejects(code=code, programs=["prog"], globals={"bad": 1}).on


def test_other_errors_come_out_as_they_are(bpf):
    with pytest.raises(CompileError):
        bpf.rejects("anything", code="no C")
