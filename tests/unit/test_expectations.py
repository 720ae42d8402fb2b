"""Tests expectations in declaration tags, in every spelling that the kernel's selftests ever used."""

import pytest

from pytest_bpfmaps import LoadError
from pytest_bpfmaps.selftests.annotations import expected_of


def texts(messages):
    return [m.text for m in messages]


def test_a_program_without_tags_is_expected_to_load():
    expected = expected_of("prog", [])
    assert expected.privileged.failure is False
    assert expected.privileged.executes is False
    assert expected.unprivileged is None


@pytest.mark.parametrize(
    "tags",
    [
        ["comment:test_expect_failure", "comment:test_expect_msg=one", "comment:test_expect_msg=two"],
        [
            "comment:test_expect_msg=11=two",
            "comment:test_expect_failure",
            "comment:test_expect_msg=9=one",
        ],
        ["comment:11:test_expect_msg=two", "comment:9:test_expect_msg=one", "comment:7:test_expect_failure"],
    ],
)
def test_spellings_and_order(tags):
    expected = expected_of("prog", tags)
    assert expected.privileged.failure
    assert texts(expected.privileged.messages) == ["one", "two"]
    assert expected.unprivileged is None


def test_users_without_privileges_take_what_is_not_said_of_them():
    expected = expected_of(
        "prog",
        [
            "comment:0:test_expect_success",
            "comment:1:test_expect_msg=fine",
            "comment:2:test_retval=7",
            "comment:3:test_expect_failure_unpriv",
        ],
    )
    assert (expected.privileged.failure, expected.unprivileged.failure) == (False, True)
    assert texts(expected.unprivileged.messages) == ["fine"]
    assert (expected.unprivileged.executes, expected.unprivileged.retval) == (True, 7)


def test_what_is_said_of_them_alone():
    expected = expected_of("prog", ["comment:0:test_expect_failure_unpriv"])
    assert expected.privileged is None
    assert expected.unprivileged.failure


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1", -1),
        ("0x2a", 42),
        ("INT_MIN", -(2**31)),
        ("_INT_MIN", -(2**31)),
        ("TEST_DATA_LEN", 64),
        ("POINTER_VALUE", None),
        ("0xbadcafe", None),
    ],
)
def test_return_values(text, value):
    expected = expected_of("prog", [f"comment:0:test_retval={text}"])
    assert (expected.privileged.executes, expected.privileged.retval) == (True, value)


def test_flags_and_levels():
    expected = expected_of(
        "prog",
        [
            "comment:0:test_prog_flags=BPF_F_TEST_STATE_FREQ",
            "comment:1:test_prog_flags=0x20",
            "comment:2:test_prog_flags=!BPF_F_TEST_REG_INVARIANTS",
            "comment:3:test_log_level=2",
            "comment:4:load_mode=no_jited",
            "comment:5:test_linear_size=60",
            "comment:6:test_description=what = it is",
        ],
    )
    assert (expected.set_flags, expected.clear_flags) == (0x28, 0x80)
    assert (expected.log_level, expected.jit, expected.linear_size) == (2, False, 60)
    assert expected.description == "what = it is"


def test_lines_follow_each_other_unless_dots_are_between():
    expected = expected_of(
        "prog",
        [
            "comment:0:test_expect_xlated=0: r1 = 1",
            "comment:1:test_expect_xlated=1: r2 = 2",
            "comment:2:test_expect_xlated=...",
            "comment:3:test_expect_xlated=5: exit",
        ],
    )
    assert [m.next_line for m in expected.privileged.xlated] == [False, True, False]


def test_machine_code_belongs_to_an_architecture():
    expected = expected_of(
        "prog",
        [
            "comment:0:test_arch=X86_64",
            "comment:1:test_jited=endbr64",
            "comment:2:test_arch=ARM64",
            "comment:3:test_jited=bti",
        ],
    )
    assert expected.architectures == ("X86_64", "ARM64")
    assert {a: texts(m) for a, m in expected.privileged.jited.items()} == {
        "X86_64": ["endbr64"],
        "ARM64": ["bti"],
    }


def test_auxiliary_programs_and_capabilities():
    expected = expected_of("prog", ["comment:0:test_auxiliary", "comment:1:test_caps_unpriv=39|12"])
    assert expected.auxiliary == {True}
    assert expected.unprivileged.capabilities == 1 << 39 | 1 << 12


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("test_retval=many", "'many' is no number"),
        ("test_expect_msg={{(}}", "no valid regular expression"),
        ("test_jited=ret", "it must come after an __arch_… tag"),
    ],
)
def test_a_tag_that_cannot_be_read(tag, why):
    with pytest.raises(LoadError, match=f"of program 'prog': .*{why}"):
        expected_of("prog", [f"comment:0:{tag}"])


def test_other_tags_are_none_of_ours():
    assert expected_of("prog", ["kernel", "comment:whatever"]) == expected_of("prog", [])
