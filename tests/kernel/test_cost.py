"""Tests ``--bpf-cost`` and its companions: what is recorded, what fails, and what stays as it is."""

from __future__ import annotations

import re

import pytest
from build_agents import AGENTS, build_agent
from caches import CACHE
from cost_checks import assert_turns_has_grown

from pytest_bpfmaps.cost.cost_file import read
from pytest_bpfmaps.cost.costs import Key

pytestmark = pytest.mark.bpf_requires("xdp")

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
const volatile unsigned rounds = ROUNDS;
const volatile int unchecked;

SEC("xdp") int turns(struct xdp_md *ctx)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++)
        sum += bpf_get_prandom_u32(); // the work
    if (unchecked)
        return *(char *)(long)ctx->data;
    return sum & 1;
}
SEC("xdp") int tiny(struct xdp_md *ctx) { return XDP_PASS; }
"""
TESTS = """
import pytest

def test_turns(bpf):
    bpf.load("turns.bpf.c")

@pytest.mark.bpf_cost_variants(large={"rounds": 60})
def test_variant(bpf):
    bpf.load("turns.bpf.c", programs=["turns"])
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Returns a function that writes the program, runs its tests, and returns the result."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_it=TESTS)

    def run(*options, rounds=4, passed=2, failed=0, ini=""):
        (pytester.path / "turns.bpf.c").write_text(SOURCE.replace("ROUNDS", str(rounds)))
        pytester.makefile(".toml", pytest="[pytest]\n" + ini)
        result = pytester.runpytest_subprocess("--bpf-kernel=host", *options)
        result.assert_outcomes(passed=passed, failed=failed)
        return result

    return run


def insns(path, program, variant="-"):
    return read(path)[Key("turns.bpf.c", program, variant, "host")].figures["insns"]


def test_what_is_recorded_and_checked(suite, pytester):
    path = pytester.path / "costs"
    assert suite("--bpf-cost=costs").ret == 0
    text = path.read_text()
    assert [line.split()[:5] for line in text.splitlines()[2:]] == [
        ["turns.bpf.c", "tiny", "-", "host", "accepted"],
        ["turns.bpf.c", "turns", "-", "host", "accepted"],
        ["turns.bpf.c", "turns", "large", "host", "accepted"],
    ]
    assert insns(path, "tiny") == 2
    assert insns(path, "turns", "large") - insns(path, "turns") >= 56
    suite("--bpf-cost=costs").stdout.fnmatch_lines(["3 programs recorded in *costs, which is unchanged"])
    assert path.read_text() == text

    result = suite("--bpf-cost-check=costs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["3 programs cost no more than costs allows"])

    result = suite("--bpf-cost-check=costs", rounds=40)  # a regression of one of the two configurations
    assert_turns_has_grown(result, "host", SOURCE, of=3)
    result.stdout.no_re_match_line(r"turns\.bpf\.c: (tiny|turns \[large\])")
    assert path.read_text() == text

    assert suite("--bpf-cost-check=costs", "--bpf-cost-tolerance=turns=5000", rounds=40).ret == 0
    assert suite("--bpf-cost-check=costs", "--bpf-cost-update", rounds=40).ret == 0
    assert insns(path, "turns") > 40
    assert suite(ini='bpf_cost_check = "costs"\n', rounds=40).ret == 0
    text = path.read_text()
    result = suite("--bpf-cost=costs", ini='bpf_cost_check = "costs"\n', rounds=50)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*/costs is not recorded: --bpf-cost-check names it, too", "  -> *-update"])
    assert path.read_text() == text


def test_lines_of_a_huge_program_are_left_out(suite, pytester):
    suite("--bpf-cost=costs")
    pytester.makeconftest(
        "from pytest_bpfmaps.cost import recorder\nrecorder._MOST_STEPS = recorder._MOST_EMULATED = 30"
    )
    result = suite("--bpf-cost-check=costs", rounds=40)
    assert result.ret == 1
    result.stdout.re_match_lines(
        [r" +no lines: a log of \d+ steps takes long; program\.verifier\.lines has them"]
    )
    result.stdout.no_fnmatch_line("*the work*")


def test_limits(suite, pytester):
    suite("--bpf-cost=costs")
    result = suite("--bpf-cost-check=costs", "--bpf-cost-limit=0.001")
    assert result.ret == 1
    result.stdout.re_match_lines([r"turns.*instructions +limit 1,000,000 +\d+ +0% of it"])


def test_a_comparison_runs_no_test(suite, pytester):
    suite("--bpf-cost=a")
    suite("--bpf-cost=b", rounds=9)
    result = pytester.runpytest_subprocess("--bpf-cost-compare", "a", "b")
    assert result.ret == 0
    result.stdout.re_match_lines([r"turns\.bpf\.c: turns +host +instructions", r"2 programs cost the same"])
    assert "passed" not in result.stdout.str()
    result = pytester.runpytest_subprocess("--bpf-cost-compare", "a", "none")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*cannot read costs from *none: No such file*", "*-> record it*"])


@pytest.mark.parametrize("option", ["--bpf-cost", "--bpf-cost-check"])
@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n", "# pytest-bpfmaps cost 99\n", "x\n"])
def test_a_damaged_file_stays_and_tests_keep_their_results(suite, pytester, option, damage):
    path = pytester.path / "costs"
    path.write_text(damage)
    result = suite(f"{option}=costs")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["cannot read costs from *costs*: *", "  -> *"])
    assert path.read_text() == damage


def test_a_file_that_is_absent(suite, pytester):
    result = suite("--bpf-cost-check=costs")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["cannot read costs from *costs: No such file or directory", "  -> record it: *"]
    )
    assert suite("--bpf-cost-check=costs", "--bpf-cost-update").ret == 0
    assert insns(pytester.path / "costs", "tiny") == 2


def test_variants_of_the_configuration(suite, pytester):
    ini = 'bpf_cost_variants = ["huge: rounds=90", "wrong: no_such=1", "unsafe: unchecked=1"]\n'
    result = suite("--bpf-cost=costs", ini=ini)
    assert result.ret == 0
    path = pytester.path / "costs"
    assert insns(path, "turns", "huge") > 90
    assert read(path)[Key("turns.bpf.c", "turns", "unsafe", "host")].verdict == "refused"
    assert read(path)[Key("turns.bpf.c", "tiny", "unsafe", "host")].verdict == "accepted"
    result.stdout.fnmatch_lines_random(
        [
            "variant 'wrong' of bpf_cost_variants: no object has the global no_such",
            "*variant 'unsafe': the verifier rejected program 'turns'*",
        ]
    )


def test_a_variant_of_a_test_that_names_no_global(suite, pytester):
    pytester.makepyfile(test_it=TESTS.replace('"rounds"', '"round"'))
    result = suite("--bpf-cost=costs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*variant 'large' of test_it.py::test_variant was not recorded: "
            "turns.bpf.c has no global 'round' -> *rounds*"
        ]
    )
    assert len(read(pytester.path / "costs")) == 2


def test_failing_tests_and_refused_programs_keep_the_old_lines(suite, pytester):
    suite("--bpf-cost=costs")
    old = (pytester.path / "costs").read_text()
    pytester.makepyfile(
        test_it="""
        def test_bad(bpf):
            bpf.load("turns.bpf.c", globals={"unchecked": 1})

        def test_good():
            pass
        """
    )
    result = suite("--bpf-cost=costs", passed=1, failed=1)
    assert result.ret == 1
    assert (pytester.path / "costs").read_text() == old


def test_c_text_has_the_name_of_its_test(suite, pytester):
    code = 'SEC("xdp") int p(void *c) { return 1; }'
    head = "#include <linux/bpf.h>\\n#include <bpf/bpf_helpers.h>\\n"
    pytester.makepyfile(test_it=f"def test_text(bpf):\n    bpf.load(code='{head}{code}')\n")
    suite("--bpf-cost=costs", passed=1)
    assert [key.object for key in read(pytester.path / "costs")] == ["test_it.py::test_text"]


def test_coverage_does_not_change_what_is_recorded(suite, pytester):
    suite("--bpf-cost=plain")
    suite("--bpf-cost=counted", "--bpf-cov", "--bpf-cov-report=none")
    plain, counted = (
        re.sub(r" (jited|translated)=\d+", "", (pytester.path / n).read_text()) for n in ("plain", "counted")
    )
    assert plain == counted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bpf-cost-update"], "--bpf-cost-update: no file is named"),
        (["--bpf-cost=x", "--bpf-cost-limit=101"], "--bpf-cost-limit: 101 can't be read"),
        (["--bpf-cost=x", "--bpf-cost-tolerance=much"], "--bpf-cost-tolerance: could not convert"),
        (["--bpf-cost=x", "-o", "bpf_cost_variants=large"], "bpf_cost_variants: large can't be read"),
    ],
)
def test_options_that_make_no_sense(pytester, options, said):
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{said}*", "*-> *"])
    assert not (pytester.path / "x").exists()


def test_a_run_without_programs_keeps_the_file(pytester):
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / "costs").write_text("anything")
    result = pytester.runpytest_subprocess("--bpf-cost=costs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no cost: the run loaded no program"])
    assert (pytester.path / "costs").read_text() == "anything"


def test_sources_of_one_name_in_two_folders_are_two_objects(suite, pytester):
    for folder, rounds in (("a", 3), ("b", 30)):
        (pytester.path / folder).mkdir()
        text = SOURCE.replace("ROUNDS", str(rounds))
        (pytester.path / folder / "same.bpf.c").write_text(text)
        test = f'def test_{folder}(bpf):\n    bpf.load("same.bpf.c", programs=["turns"])\n'
        (pytester.path / folder / f"test_{folder}.py").write_text(test)
    (pytester.path / "test_it.py").unlink()
    suite("--bpf-cost=costs")
    found = read(pytester.path / "costs")
    assert [key.object for key in found] == ["a/same.bpf.c", "b/same.bpf.c"]
    small, large = (cost.figures["insns"] for cost in found.values())
    assert large > small + 20
    suite("--bpf-cost-check=costs").stdout.fnmatch_lines(["2 programs cost no more than costs allows"])
    text = (pytester.path / "b/same.bpf.c").read_text().replace("rounds = 30", "rounds = 60")
    (pytester.path / "b/same.bpf.c").write_text(text)
    result = suite("--bpf-cost-check=costs")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["b/same.bpf.c: turns*", "FAILED: 1 of 2 programs*"])


AGENT = """
def test_agent(bpf):
    path = bpf.compile("network.bpf.c")
    agent = bpf.start(["./agent", "load", path, "wait"], ready="waiting")
    own = bpf.load("network.bpf.c")
    for program in own.programs:
        stats, same = program.verifier, agent.programs[program.name].verifier
        assert (same.instructions, same.translated_size) == (stats.instructions, stats.translated_size)
        assert same.stack_depths is None
"""


def test_programs_of_an_agent(suite, pytester):
    build_agent(pytester.path)
    source = (AGENTS / "network.bpf.c").read_text()
    (pytester.path / "network.bpf.c").write_text(source)
    pytester.makepyfile(test_it=AGENT)
    suite("--bpf-cost=costs", passed=1)
    costs = read(pytester.path / "costs")
    own, of_agent = (
        {key.program: cost.figures["insns"] for key, cost in costs.items() if key.object == name}
        for name in ("network.bpf.c", "agent")
    )
    assert own == of_agent != {}
    path = pytester.path / "costs"
    path.write_text(re.sub(r"^(agent .* insns)=\d+", r"\1=1", path.read_text(), flags=re.MULTILINE))
    result = suite("--bpf-cost-check=costs", passed=1)
    assert result.ret == 1
    result.stdout.re_match_lines_random(
        [r"agent: \w+ +host +instructions +1 ", " +no lines: another process loaded it"]
    )
    result.stdout.re_match_lines([rf"FAILED: {len(own)} of {2 * len(own)} programs cost more"])
