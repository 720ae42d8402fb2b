"""The marker bpf_requires: a misspelt name is an error, a missing feature a skip."""


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
