"""Tests ranges of kernel versions, and compares them with packaging's specifiers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from pytest_bpfmaps.kernel.version_ranges import in_range, is_range

NUMBERS = st.tuples(st.integers(4, 7), st.integers(0, 20), st.integers(0, 30))


@given(st.lists(st.tuples(st.sampled_from([">=", "<"]), NUMBERS), min_size=1, max_size=3), NUMBERS)
def test_a_range_of_whole_versions_is_packagings(conditions, version):
    text = ",".join(f"{sign}{'.'.join(map(str, numbers))}" for sign, numbers in conditions)
    release = ".".join(map(str, version))
    lower = max((numbers for sign, numbers in conditions if sign == ">="), default=(0, 0, 0))
    if all(sign == ">=" or lower < numbers for sign, numbers in conditions):
        assert in_range(text, f"{release}-56-amd64") == SpecifierSet(text).contains(release)
    else:
        assert not SpecifierSet(text).contains(release)
        with pytest.raises(ValueError, match="no version is in the range"):
            in_range(text, release)


@pytest.mark.parametrize(
    ("text", "release", "expected"),
    [
        (">=6.6", "6.6.0-rc1", True),
        (">=6.6", "6.1.0-56-amd64", False),
        (">=6.6", "6.12.118+deb13-amd64", True),
        (">= 5.10, < 6.6", "6.1.192", True),
        ("<=6.6", "6.6.30", True),
        (">6.6", "6.6.30", False),
        ("==6.1", "6.1.192", True),
        ("!=6.1", "6.1.192", False),
        (">=6", "5.19.2", False),
        (">=v6.6", "6.7.1", True),
    ],
)
def test_as_many_numbers_count_as_are_given(text, release, expected):
    assert is_range(text)
    assert in_range(text, release) is expected


@pytest.mark.parametrize("text", [">=x", ">=6.6<7", ">=", "~=6.1", ">=6.6,"])
def test_what_is_no_range(text):
    assert is_range(text)
    with pytest.raises(ValueError, match=r"is not a range of versions: write '>=5\.15'"):
        in_range(text, "6.1.0")
    assert not is_range("6.*")


@pytest.mark.parametrize(
    ("text", "has_one"),
    [
        (">=6.6,<6.1", False),
        (">6.1,<6.2", False),
        (">6,<7", False),
        ("==6.1,!=6.1", False),
        (">6.1.4,<6.1.5", False),
        ("<0", False),
        (">6.1.4,<6.1.6", True),
        (">=6.1,<6.2", True),
        (">6,<6.2,!=6.1", False),
        (">=6.1,!=6.1,<7", True),
        ("==6,>6.18.44", True),
        ("!=6", True),
        ("<6,!=5,!=4", True),
    ],
)
def test_a_range_that_no_version_is_in(text, has_one):
    versions = [f"{a}.{b}.{c}" for a in range(3, 8) for b in (0, 1, 2, 6, 17, 19) for c in (0, 4, 5, 6, 45)]
    if has_one:
        assert any(in_range(text, each) for each in versions)
    else:
        with pytest.raises(ValueError, match=f"no version is in the range '{text}'"):
            in_range(text, "6.1.0")
