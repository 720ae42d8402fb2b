"""Tests ``--bpf-cov``: its options, its reports, and that tests give the same results with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from coverage_suite import SOURCE, TESTS, measured_suite, run
from shown_blocks import shows

pytestmark = pytest.mark.bpf_requires("xdp")

LARGE = """
def test_large(bpf):
    assert bpf.load("judge.bpf.c").programs.judge.run(bytes(60)).retval.name == "XDP_DROP"
"""
EXISTS = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct { int pid; } __attribute__((preserve_access_index));
struct task_struct___none { int no_such_field; } __attribute__((preserve_access_index));
struct sock___none { int sk_refcnt_none; } __attribute__((preserve_access_index));

const volatile int debug;
int found;

static __attribute__((noinline)) int only_there(int x)
{
	if (x > 3)
		return 7;
	return 8;
}

SEC("xdp") int p(struct xdp_md *ctx)
{
	struct task_struct___none *task = (void *)0;

	if (bpf_core_field_exists(task->no_such_field)) {
		found += only_there(ctx->ingress_ifindex);
		if (debug)
			found++;
	} else {
		found = 2;
	}
	if (debug)
		found += 5;
	if (!bpf_core_field_exists(((struct task_struct *)0)->pid))
		return XDP_DROP;
	return bpf_core_type_exists(struct sock___none) && found ? XDP_TX : XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
MISSED = {9: 1, 10: 1, 11: 1, 12: 0, 13: 1, 14: 1}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return measured_suite(pytester, monkeypatch)


def report(suite: pytest.Pytester, *options: str, file: str = "judge.bpf.c") -> dict[str, Any]:
    """Returns the entry of a file in the JSON report of a run."""
    result = run(suite, "--bpf-cov-report=json:out.json", *options)
    assert result.ret == 0, result.outlines
    found: dict[str, Any] = json.loads((suite.path / "out.json").read_text())["files"][file]
    return found


def counts(suite: pytest.Pytester, *options: str, file: str = "judge.bpf.c") -> dict[int, int]:
    return {int(n): count for n, count in report(suite, *options, file=file)["counts"].items()}


def test_the_table(suite: pytest.Pytester) -> None:
    result = run(suite, "--bpf-cov-report=term-missing")
    result.stdout.fnmatch_lines(
        [
            "*BPF coverage*",
            "judge.bpf.c *6 *1 *2 *1 *83%",
            "    missing: 12",
            "measured: 1 program by counters",
        ]
    )
    assert result.ret == 0


def test_without_the_option_nothing_is_measured(suite: pytest.Pytester) -> None:
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.no_fnmatch_line("*coverage*")
    assert not (suite.path / ".bpf-coverage.json").exists()


def test_the_twins(suite: pytest.Pytester) -> None:
    suite.makefile(
        ".toml",
        pytest="""
        [pytest]
        bpf_cov = ["*.bpf.c"]
        bpf_cov_report = ["json:a.json"]
        bpf_cov_fail_under = "90"
        bpf_cov_context = "test"
        bpf_cov_engine = "counters"
        """,
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["FAILED: 83.3 % of the lines ran, and 90 % are asked for"])
    assert result.ret == 1
    assert "contexts" in json.loads((suite.path / "a.json").read_text())["files"]["judge.bpf.c"]
    assert suite.runpytest_subprocess("-p", "no:cacheprovider", "--no-bpf-cov").ret == 0


@pytest.mark.parametrize(("least", "code"), [("83", 0), ("84", 1)])
def test_fail_under(suite: pytest.Pytester, least: str, code: int) -> None:
    assert run(suite, f"--bpf-cov-fail-under={least}").ret == code


def test_a_failing_test_stays_what_it_is(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_fails='def test_fails(bpf):\n    assert bpf.load("judge.bpf.c").globals.seen == 1')
    result = run(suite, "--bpf-cov-fail-under=1")
    result.assert_outcomes(passed=1, failed=1)


def test_append(suite: pytest.Pytester) -> None:
    assert counts(suite) == MISSED
    suite.makepyfile(test_small=LARGE)
    assert counts(suite, "--bpf-cov-append") == {**MISSED, 9: 2, 10: 2, 11: 2, 12: 1, 14: 2}
    assert counts(suite) == {**MISSED, 12: 1, 13: 0}


def test_what_was_counted_of_another_text_is_not_added(suite: pytest.Pytester) -> None:
    assert run(suite).ret == 0
    (suite.path / "judge.bpf.c").write_text("// one line more\n" + SOURCE)
    result = run(suite, "--bpf-cov-append", "--bpf-cov-report=json:out.json")
    result.stdout.fnmatch_lines(["*judge.bpf.c has changed: what earlier runs counted of it is left out"])
    found = json.loads((suite.path / "out.json").read_text())["files"]["judge.bpf.c"]["counts"]
    assert found == {str(line + 1): count for line, count in MISSED.items()}


def test_damaged_data_is_told(suite: pytest.Pytester) -> None:
    (suite.path / ".bpf-coverage.json").write_text("{")
    result = run(suite, "--bpf-cov-append")
    result.stdout.fnmatch_lines(
        ["cannot add to the coverage in *", "  -> remove it, and run all tests again"]
    )
    assert result.ret == 0


def test_which_test_ran_a_line(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_large=LARGE)
    found = report(suite, "--bpf-cov-context=test")["contexts"]
    both = ["test_large.py::test_large", "test_small.py::test_small"]
    assert (found["11"], found["12"], found["13"]) == (both, both[:1], both[1:])


def test_an_object_of_several_tests(suite: pytest.Pytester) -> None:
    """The report has the lines that each of them ran, although the object is closed after the last."""
    suite.makepyfile(
        test_small="""
        import pytest

        @pytest.fixture(scope="module")
        def judge(bpf_module):
            return bpf_module.load("judge.bpf.c").programs.judge

        def test_a(judge):
            judge.run(bytes(14))

        def test_b(judge):
            judge.run(bytes(60), repeat=3)
        """
    )
    found = report(suite, "--bpf-cov-context=test")
    assert found["contexts"]["12"] == ["test_small.py::test_b"]
    assert found["contexts"]["13"] == ["test_small.py::test_a"]
    assert (found["counts"]["12"], found["counts"]["13"]) == (3, 1)


def test_workers(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_large=LARGE)
    assert counts(suite, "-n1") == {**MISSED, 9: 2, 10: 2, 11: 2, 12: 1, 14: 2}


def test_beside_coverage_of_python(suite: pytest.Pytester) -> None:
    suite.makepyfile(lib="def f():\n    return 1\n\ndef g():\n    return 2")
    suite.makepyfile(test_small="import lib\nlib.f()\n" + TESTS)
    found = counts(suite, "--cov=lib", "--cov-report=json:python.json")
    python = json.loads((suite.path / "python.json").read_text())["files"]["lib.py"]
    assert (found, python["missing_lines"]) == (MISSED, [5])


def test_linked_sources(suite: pytest.Pytester) -> None:
    head = SOURCE.partition("int seen")[0]
    text = """
        static __noinline int same(int x) {{ if (x > {0}) return 1; return 2; }}
        SEC("xdp") int {1}(struct xdp_md *c) {{ return same(c->data_end - c->data); }}
    """
    for name, least in (("a", 20), ("b", 5)):
        licence = head if name == "a" else head.rpartition("char")[0]
        (suite.path / f"{name}.bpf.c").write_text(licence + text.format(least, name))
    suite.makepyfile(
        test_small="""
        def test_it(bpf):
            programs = bpf.load(["a.bpf.c", "b.bpf.c"]).programs
            assert (programs.a.run(bytes(14)).retval, programs.b.run(bytes(14), repeat=2).retval) == (2, 1)
        """
    )
    assert run(suite, "--bpf-cov-report=json:out.json").ret == 0
    files = json.loads((suite.path / "out.json").read_text())["files"]
    taken = {name: {(b["outcome"], b["count"]) for b in file["branches"]} for name, file in files.items()}
    assert taken == {
        "a.bpf.c": {("true", 0), ("false", 1)},
        "b.bpf.c": {("true", 2), ("false", 0)},
    }


def test_what_a_kernel_can_not_reach_is_marked(suite: pytest.Pytester) -> None:
    """Only lines that depend on a missing field are unreachable. A line that depends on a global is not."""
    (suite.path / "exists.bpf.c").write_text(EXISTS)
    suite.makepyfile(
        test_small="""
        def test_it(bpf):
            assert bpf.load("exists.bpf.c").programs.p.run(bytes(14)).retval == 3
        """
    )
    found = report(suite, "--bpf-cov-report=term-missing", file="exists.bpf.c")
    assert found["unreachable_lines"] == [13, 14, 15, 16, 17, 24, 25, 26, 33]
    assert found["missing_lines"] == [31]


def test_tests_notice_nothing(suite: pytest.Pytester) -> None:
    """Maps, globals, figures of the verifier and settings are the same with coverage and without."""
    suite.makepyfile(
        test_small="""
        import json, os, sys
        from pytest_bpfmaps.objects.collection import all_of

        def test_it(bpf):
            opened = bpf.open("judge.bpf.c")
            opened.globals.limit = 30
            opened.programs.judge.flags = 0
            loaded = opened.load()
            judge = loaded.programs.judge
            verdicts = [int(judge.run(bytes(size)).retval) for size in (14, 25, 60)]
            instructions = judge.verifier.instructions
            print("FACTS", verdicts, loaded.globals.seen, loaded.globals.limit, sorted(loaded.globals),
                  sorted(map(str, all_of(loaded.maps))), instructions, [str(m) for m in opened.maps],
                  opened.programs.judge.autoload, judge.verifier.log.count("processed"), loaded)
            loaded.close()
            loaded.close()
        """
    )
    plain = suite.runpytest_subprocess("-s", "-p", "no:cacheprovider")
    counted = run(suite, "-s")
    facts = [[line for line in result.outlines if "FACTS" in line] for result in (plain, counted)]
    assert len(facts[0]) == 1
    assert facts[0] == facts[1]
    assert counted.ret == 0
    counted.stdout.fnmatch_lines(["judge.bpf.c *100%"])


def test_a_rejected_program_is_explained_as_ever(suite: pytest.Pytester) -> None:
    bad = SOURCE.replace("return XDP_DROP", "return *(int *)(long)ctx->data")
    (suite.path / "bad.bpf.c").write_text(bad)
    suite.makepyfile(
        test_small="""
        import pytest
        from pytest_bpfmaps import VerifierError

        def test_it(bpf):
            with pytest.raises(VerifierError) as caught:
                bpf.load("bad.bpf.c")
            print("FACTS", repr(str(caught.value)))
        """
    )
    shown = [suite.runpytest_subprocess("-s", "-p", "no:cacheprovider"), run(suite, "-s")]
    facts = [[line for line in result.outlines if "FACTS" in line] for result in shown]
    assert len(facts[0]) == 1
    assert facts[0] == facts[1]


def test_a_program_that_is_refused_with_counters_runs_as_it_is(suite: pytest.Pytester) -> None:
    """A program may use 64 maps, and the counters need one more."""
    declared = "#define ONE(n) struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); "
    declared += '__type(key, int); __type(value, long); } m##n SEC(".maps");\n'
    declared += "\n".join(f"ONE({i})" for i in range(62))
    used = "\n".join(f"\tif (bpf_map_lookup_elem(&m{i}, &zero)) sum++;" for i in range(62))
    text = SOURCE.replace('SEC("xdp")', f'{declared}\nSEC("xdp")')
    text = text.replace("\t__atomic", f"\tint zero = 0; volatile int sum = 0;\n{used}\n\t__atomic")
    (suite.path / "many.bpf.c").write_text(text)
    suite.makepyfile(
        test_small="""
        def test_it(bpf):
            loaded = bpf.load("many.bpf.c")
            assert loaded.programs.judge.run(bytes(14)).retval.name == "XDP_PASS"
            assert loaded.globals.seen == 1
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1)
    shows("coverage.md", "not measured", result.stdout.str())


def test_a_prebuilt_object_is_not_measured(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_small="""
        import shutil

        def test_it(bpf, tmp_path):
            shutil.copy(bpf.compile("judge.bpf.c"), tmp_path / "made.bpf.o")
            assert bpf.load(tmp_path / "made.bpf.o").programs.judge.run(bytes(14)).retval == 2
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["not measured: judge of made.bpf.o: counters: no source of it was compiled here*"]
    )
