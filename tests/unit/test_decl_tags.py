"""Tests declaration tags of functions that clang wrote."""

from test_btf_values import compile_types

from pytest_bpfmaps.btf.decl_tags import function_tags

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define tag(text) __attribute__((btf_decl_tag(text)))
struct tagged { int a tag("of a field"); } tag("of a struct");
struct tagged value tag("of a variable");
tag("first") tag("second") __attribute__((noinline))
int named(int a tag("of an argument")) { return a + value.a; }
SEC("xdp") int plain(struct xdp_md *ctx) { return named(ctx->ingress_ifindex); }
char LICENSE[] SEC("license") = "GPL";
"""


def test_only_those_of_a_whole_function(tmp_path):
    assert function_tags(compile_types(CODE, tmp_path).btf) == {"named": ["first", "second"]}
