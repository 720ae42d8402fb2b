"""Tests the messages about keys with equal values that differ in bytes which the value does not show."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.maps.equal_keys import describe

HEAD = "padding differs (uninitialised bytes?)"


def key(*padding):
    return b"\1\0\0\0" + bytes(padding)


def test_the_bytes_that_differ_are_shown():
    assert describe([key(0, 5, 9), key(0, 6, 9)]) == f"2 elements have this key: their {HEAD}: byte 5: 05, 06"
    several = [key(1, 0, 0, 0, 2), key(3, 0, 0, 0, 4)]
    assert (
        describe(several) == f"2 elements have this key: their {HEAD}: bytes 4 to 8: 01000000 02, 03000000 04"
    )


def test_one_element_differs_from_what_was_asked_for():
    assert describe([key(5)], key(0)) == f"1 element has this key: its {HEAD}: byte 4: 00, 05"


def test_three_keys_are_shown():
    three = [key(n) for n in (1, 2, 3)]
    assert describe(three).endswith("byte 4: 01, 02, 03")
    assert describe([*three, key(4)]) == f"4 elements have this key: their {HEAD}: byte 4: 01, 02, 03, …"


def test_without_a_difference_no_place_is_named():
    assert describe([key(1), key(1)]) == f"2 elements have this key: their {HEAD}"


@given(st.binary(min_size=1, max_size=12), st.data())
def test_the_place_has_each_difference_and_no_more(one, data):
    other = data.draw(st.binary(min_size=len(one), max_size=len(one)).filter(lambda other: other != one))
    where = describe([one, other]).partition("bytes?): ")[2].partition(": ")[0].split()
    first, last = int(where[1]), int(where[-1])
    assert one[:first] == other[:first]
    assert one[last + 1 :] == other[last + 1 :]
    assert one[first] != other[first]
    assert one[last] != other[last]
