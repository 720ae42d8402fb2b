"""Tests comparisons of a map with its snapshots: they are quick, and see every change."""

import pytest

STRUCTS = "struct key { __u32 a; __u8 b; __u16 c; }; struct value { double d; __u32 n; };"


@pytest.fixture
def structs(make_map):
    """A map with structs that have padding, and more elements than are decoded at once."""
    m = make_map("hash", "struct key", "struct value", max_entries=2000, prologue=STRUCTS)
    m.update_batch([((i, i % 7, i % 5), (i / 2, i)) for i in range(600)])
    return m


@pytest.mark.parametrize("read", [lambda s: s, lambda s: s if s.items() else None], ids=["packed", "read"])
def test_a_comparison_with_its_map_encodes_no_key(structs, monkeypatch, read):
    seen = read(structs.snapshot())
    codec = type(structs.snapshot()._codec)
    monkeypatch.setattr(codec, "encode", lambda *_: pytest.fail("a key was encoded"))
    assert seen == structs
    assert (seen != structs) is False
    assert structs.snapshot() == structs.snapshot()
    assert structs.snapshot() >= structs.snapshot()
    assert structs.snapshot() <= structs.snapshot()
    monkeypatch.undo()
    assert structs == seen
    assert structs >= seen
    assert seen == dict(seen)


def test_a_comparison_with_its_map_sees_each_change(structs):
    def changed(change, *, least=False, most=False):
        seen = [structs.snapshot() for _ in range(5)]
        change()
        assert seen[0] != structs
        assert structs != seen[1]
        assert seen[2] != structs.snapshot()
        assert (structs >= seen[3], structs <= seen[4]) == (least, most)
        for each in (seen[0], copied(seen[0])):
            assert each != structs
            assert (each == structs) is False
            assert structs != each
            assert (structs >= each, structs <= each) == (least, most)
            assert (structs.snapshot() >= each, structs.snapshot() <= each) == (least, most)
            assert structs.snapshot() != each

    def copied(seen):
        made = structs.snapshot()
        made.clear()
        made.update(seen)
        return made

    changed(lambda: structs.update({(7, 0, 2): (3.5, 8)}))
    changed(lambda: structs.update({(7, 1, 2): (3.5, 8)}), least=True)
    changed(lambda: structs.delete_elem((9, 2, 4)), most=True)
    raw = structs.snapshot()._codec.encode((11, 4, 1), "key")
    changed(lambda: (structs.delete_elem(raw), structs.update_elem(raw[:5] + b"x" + raw[6:], (5.5, 11))))


def test_the_same_keys_in_the_same_order(structs):
    for key in list(structs)[:100]:
        seen = structs.snapshot()
        structs[key] = (-1.0, 1)
        if structs.snapshot().packed.keys == seen.packed.keys:
            break  # the kernel puts an element first in its bucket, and this one is alone there
    else:
        pytest.fail("no element is alone in its bucket")
    assert seen != structs


def test_the_same_values_of_another_key(structs):
    structs.update(dict.fromkeys(structs, (1.0, 1)))
    seen = structs.snapshot()
    del structs[7, 0, 2]
    structs[7, 1, 2] = (1.0, 1)
    assert structs.snapshot().packed.values == seen.packed.values
    assert seen != structs


def test_a_snapshot_with_another_key_than_its_map(structs):
    """A record equals another one with other bytes in its padding, which is another key for the kernel."""
    codec = structs.snapshot()._codec
    raw = codec.encode((11, 4, 1), "key")
    seen = structs.snapshot()
    seen[codec.decode(raw[:5] + b"x" + raw[6:])] = seen.pop(codec.decode(raw))
    assert structs.snapshot() != seen
    assert structs != seen


def test_no_number_equals_nan(make_map):
    m = make_map("hash", "struct key", "double", max_entries=2000, prologue=STRUCTS)
    m.update_batch([((i, 0, 0), float(i)) for i in range(1000)])
    assert m == m.snapshot()
    m[1, 0, 0] = float("nan")
    assert m.snapshot() != m.snapshot()
    assert (m == m.snapshot()) is False
    assert (m.snapshot() == m) is False
