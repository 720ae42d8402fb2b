"""Tests expected messages in a log: order, absence, neighbouring lines, expressions in braces."""

import pytest

from pytest_bpfmaps.verifier.expected_messages import by_regex, by_text, mismatch

LOG = """\
0: (b7) r0 = 1
1: (61) r1 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4
R1 offset is outside of the packet
processed 2 insns
"""


def check(*messages):
    return mismatch(LOG, messages)


def test_messages_in_order_match():
    assert check() is None
    assert check(by_text("r0 = 1"), by_text("invalid access"), by_text("processed 2")) is None


def test_a_message_is_looked_for_behind_the_one_before_it():
    wrong = check(by_text("invalid access"), by_text("r0 = 1"))
    assert (wrong.problem, wrong.message.text, wrong.after.text) == ("missing", "r0 = 1", "invalid access")
    assert str(wrong) == "it is only in line 1, not after the match of 'invalid access' in line 3"


def test_the_same_text_twice_must_be_there_twice():
    assert check(by_text("(61)"), by_text("(61)")).problem == "missing"
    assert check(by_text("packet"), by_text("packet")) is None


def test_a_missing_message_and_what_it_should_follow():
    assert str(check(by_text("nowhere"))) == "nothing matches it"
    wrong = check(by_text("r0 = 1"), by_text("nowhere"))
    assert str(wrong) == "nothing matches it after the match of 'r0 = 1' in line 1"


def test_plain_text_is_no_expression():
    assert check(by_text("*(u32 *)(r1 +0)")) is None
    assert check(by_text("r. = 1")).problem == "missing"


@pytest.mark.parametrize(
    "text",
    ["off={{[0-9]+}} size", "{{^}}1: (61)", "packet{{$}}", "{{[[:digit:]]+}}: (61)", "{{(a|the) packet}}"],
)
def test_expressions_in_braces(text):
    assert check(by_text(text)) is None


def test_a_list_of_what_must_not_be_does_not_match_the_end_of_a_line():
    assert check(by_text("size=4{{[^x]}}R1")).problem == "missing"


@pytest.mark.parametrize("text", ["off={{[0-9]+", "{{(}}", "a }} {{ b"])
def test_broken_expressions(text):
    with pytest.raises(ValueError):
        by_text(text)


def test_what_must_not_be_there():
    never = by_text("invalid access", negative=True)
    assert check(by_text("r0 = 1"), never, by_text("(61)")) is None
    assert check(by_text("outside"), never) is None
    wrong = check(by_text("r0 = 1"), never, by_text("processed"))
    assert (wrong.problem, wrong.found) == ("unexpected", 3)
    assert str(wrong) == "it is in line 3, where it must not be"
    assert check(never).problem == "unexpected"
    assert check(by_text("r0 = 1"), by_text("nowhere", negative=True), never).problem == "unexpected"


def test_the_missing_message_is_said_before_what_stands_in_its_place():
    wrong = check(by_text("invalid", negative=True), by_text("nowhere"))
    assert (wrong.problem, wrong.message.text) == ("missing", "nowhere")


def test_the_next_line():
    assert check(by_text("(b7)", next_line=True), by_text("(61)", next_line=True)) is None
    wrong = check(by_text("(b7)"), by_text("outside", next_line=True))
    assert str(wrong) == "it is in line 4, not in the line after the match of '(b7)' in line 1"


def test_python_expressions_know_lines():
    assert check(by_regex(r"^invalid access .* size=\d$"), by_regex("^R1 ")) is None
    assert check(by_regex("^access")).problem == "missing"


def test_what_is_unwanted_may_be_a_part_of_the_next_message():
    assert check(by_text("processed", negative=True), by_text("processed 2")) is None
    assert check(by_text("R1", negative=True), by_text("processed 2")).problem == "unexpected"
