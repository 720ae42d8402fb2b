"""Tests the marker bpf_requires: a misspelt name is an error, a missing feature is a skip."""

import pytest
from shown_blocks import shows


def test_misspelt_and_missing(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_requires("kprob/do_unlinkat")
        def test_section(bpf_kernel): pass

        @pytest.mark.bpf_requires("kprobe/do_unlinkatt")
        def test_function(bpf_kernel): pass

        @pytest.mark.bpf_requires("tracepoint/sched/sched_swich")
        def test_tracepoint(bpf_kernel): pass

        @pytest.mark.bpf_requires("fexit/account_page_dirtied")
        def test_gone(bpf_kernel): pass
        """
    )
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(errors=3, skipped=1)
    result.stdout.re_match_lines(
        [
            r"E .*cannot probe 'kprob/do_unlinkat': no libbpf knows such a section",
            r" *-> did you mean 'kprobe/do_unlinkat'",
            r"E .*no kernel on record .* has a function 'do_unlinkatt'",
            r"E .*no kernel on record .* has a tracepoint 'sched/sched_swich'",
            r" *-> did you mean 'sched/sched_switch'",
            r"lacks attach point fexit/account_page_dirtied: 1 test \(host\)",
        ]
    )
    shows("markers.md", "do_unlinkatt", result.stdout.str())


PROGRAM = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    char LICENSE[] SEC("license") = "GPL";
    SEC("SECTION") int prog(void *ctx) { return 0; }
"""
UNMARKED = """
    import pytest

    def code(section):
        return PROGRAM.replace("SECTION", section)

    def test_gone(bpf):
        bpf.load(code=code("fentry/account_page_dirtied")).attach()

    def test_keyword(bpf):
        bpf.load(code=code("kprobe")).programs.prog.attach(function="account_page_dirtied")

    def test_misspelt(bpf):
        bpf.load(code=code("fentry/account_page_dirtiedd")).attach()

    def test_rejected(bpf):
        bpf.load(code=code("kprobe/account_page_dirtied").replace("return 0", "return *(int *)0")).attach()

    def test_expected(bpf):
        with pytest.raises(OSError):
            bpf.load(code=code("fentry/account_page_dirtied")).attach()
"""


def test_an_unmarked_test_is_skipped_for_what_the_kernel_lacks(pytester):
    pytester.makepyfile(f"PROGRAM = {PROGRAM!r}\n" + UNMARKED.replace("\n    ", "\n"))
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=2, failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "lacks attach point fentry/account_page_dirtied: 1 test (host)",
            "lacks attach point kprobe/account_page_dirtied: 1 test (host)",
        ]
    )
    result = pytester.runpytest_subprocess("--bpf-strict")
    result.assert_outcomes(failed=4, passed=1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", '*bpf_requires() names no feature: write bpf_requires("xdp"*'),
        ("['xdp']", "*cannot probe ?'xdp'?: it is list, not the name of a feature*"),
        ("'xdp', 5", "*cannot probe 5: it is int, not the name of a feature*"),
        ("config=250", "*cannot probe 250: it is int, not the name of a feature*"),
    ],
)
def test_what_is_no_name_is_an_error(pytester, arguments, error):
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.bpf_requires({arguments})
        def test_marked(bpf): pass
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=host")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([error])
