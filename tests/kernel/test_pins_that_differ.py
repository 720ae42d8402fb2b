"""Tests a pin by name whose map is not the one that the object declares."""

import errno
import warnings

import pytest
from pinned_counts import HEAD, code

from pytest_bpfmaps import LoadError, ReusedTypeWarning


@pytest.fixture
def load(bpf):
    """Loads C text with includes and licence."""
    return lambda text: bpf.load(code=HEAD + text)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"max_entries": 9}, "max_entries is 8, but the object's is 9"),
        ({"flags": 1}, "flags is 0x0, but the object's is 0x1"),
        ({"type": "ARRAY"}, "type is hash, but the object's is array"),
        (
            {"type": "LRU_HASH", "value": "char[12]", "max_entries": 1, "name": ""},
            "type is hash, but the object's is lru_hash, value_size is 8, but the object's is 12, "
            "max_entries is 8, but the object's is 1",
        ),
    ],
)
def test_a_mismatch_is_explained_field_by_field(bpf, load, other, why):
    load(code())
    with pytest.raises(LoadError) as caught:
        load(code(**other))
    message = str(caught.value)
    assert f"pinned at {bpf.pin_root}/counts does not fit map 'counts'" in message
    assert f": {why}\n" in message
    assert caught.value.errno == errno.EINVAL
    assert bpf.pinned("counts").max_entries == 8  # the pin has not changed


OLD = "struct flow { __u32 packets, bytes; };"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("struct flow { __u32 bytes, packets; };", "__u32 bytes; __u32 packets; } in the object"),
        ("struct flow { __u64 packets; };", "struct flow { __u64 packets; } in the object"),
        ("struct flow { __u32 packets; char bytes[4]; };", "char[4] bytes; } in the object"),
        ("struct flow { int packets; enum { A } bytes; };", None),
        ("struct stream { unsigned packets, bytes; };\n#define flow stream", None),
    ],
)
def test_other_fields_of_the_same_size_are_a_warning(load, new, said):
    first = load(OLD + code(value="struct flow", name=""))
    first.maps.counts[1] = (2, 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        second = load(new + code(value="struct flow", name=""))
    assert second.maps.counts.id == first.maps.counts.id
    assert bytes(second.maps.counts[1]) == bytes(first.maps.counts[1])
    assert [w.category for w in seen] == [ReusedTypeWarning] * (said is not None)
    if said is not None:
        text = str(seen[0].message)
        assert "map 'counts' (hash) of " in text
        assert "whose value has other fields: struct flow { __u32 packets; __u32 bytes; } there" in text
        assert said in text
        assert seen[0].filename == __file__
