"""Walking through the keys of a map while others delete them: what stays is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.maps.key_walk import Walk


class Hash:
    """Answers as ``BPF_MAP_GET_NEXT_KEY`` of a hash does; behind a key that is gone comes the first one."""

    def __init__(self, keys, deletions):
        self.there = dict.fromkeys(keys, b"value")
        self.deletions = deletions  # by the number of the call, the keys that go before it
        self.calls = 0

    def _meanwhile(self):
        for key in self.deletions.get(self.calls, ()):
            self.there.pop(key, None)
        self.calls += 1

    def next_key(self, key):
        self._meanwhile()
        keys = list(self.there)
        after = keys.index(key) + 1 if key in self.there else 0
        return keys[after] if after < len(keys) else None

    def lookup(self, key):
        self._meanwhile()
        return self.there.get(key)


KEYS = [bytes([n]) for n in range(12)]


@given(st.dictionaries(st.integers(0, 40), st.lists(st.sampled_from(KEYS), max_size=3), max_size=8))
def test_what_stays_is_found(deletions):
    the_map = Hash(KEYS, deletions)
    walk = Walk(the_map.next_key, the_map.lookup, most=1000)
    assert walk.complete
    assert walk.found.keys() >= the_map.there.keys()
    assert walk.found.keys() <= set(KEYS)
    assert set(walk.found.values()) <= {b"value"}


def test_an_undisturbed_walk_needs_a_step_for_each_key():
    the_map = Hash(KEYS, {})
    walk = Walk(the_map.next_key, the_map.lookup, most=len(KEYS) + 1)
    assert (walk.complete, walk.restarts, list(walk.found)) == (True, 0, KEYS)


def test_it_goes_on_behind_the_last_key_that_is_still_there():
    """The calls are: first key, then for each key its successor and its value."""
    fourth = 1 + 2 * 3
    the_map = Hash(KEYS, {fourth: [KEYS[3], KEYS[2]]})
    walk = Walk(the_map.next_key, the_map.lookup, most=len(KEYS) + 2)
    assert (walk.complete, walk.restarts) == (True, 1)
    assert list(walk.found) == [k for k in KEYS if k != KEYS[3]]


@pytest.mark.parametrize("most", [0, 1, 12])
def test_it_ends_after_so_many_steps(most):
    the_map = Hash(KEYS, {})
    walk = Walk(the_map.next_key, the_map.lookup, most=most)
    assert (walk.complete, len(walk.found)) == (False, most)
