"""Tests snapshots of large maps: they act like a dict, and decode on use. NumPy arrays."""

import collections
import copy
import json
import pickle
import threading

import pytest

from pytest_bpfmaps import MapError, MapOverflowError, MapValueError
from pytest_bpfmaps.maps.lazy_snapshot import LazySnapshot
from pytest_bpfmaps.maps.snapshot import Snapshot

COUNT = 5000
ALL = {k: k * 3 for k in range(COUNT)}
POINT = "struct point { __s32 x, y; }; struct stats { __u64 count; __u32 flags; char comm[12]; };"


@pytest.fixture
def large(make_map):
    m = make_map("hash", max_entries=COUNT)
    m.update_batch(ALL)
    return m


@pytest.fixture
def lazy(large):
    made = large.snapshot()
    assert type(made) is LazySnapshot
    return made


# each operation must give the result of a plain dict
USES = {
    "isinstance": lambda s: isinstance(s, dict) and isinstance(s, collections.abc.Mapping),
    "==": lambda s: s == ALL,
    "== from the left": lambda s: ALL == s,  # noqa: SIM300
    "!=": lambda s: (s != ALL, s != {**ALL, 1: 0}, s != {1: 3}) == (False, True, True),
    "dict": lambda s: dict(s) == ALL and type(dict(s)) is dict,
    "dict of it with names": lambda s: dict(s, x=1) == {**ALL, "x": 1},
    "**": lambda s: {**s} == ALL,
    "update another": lambda s: updated({}, s) == ALL,
    "update a full one": lambda s: updated({-1: 0}, s) == {-1: 0, **ALL},
    "|": lambda s: s | {-1: 0} == {**ALL, -1: 0},
    "| from the left": lambda s: {-1: 0} | s == {-1: 0, **ALL},
    "json": lambda s: json.loads(json.dumps(s)) == {str(k): v for k, v in ALL.items()},
    "json, sorted": lambda s: json.loads(json.dumps(s, sort_keys=True, indent=1))["7"] == 21,
    "pickle": lambda s: pickle.loads(pickle.dumps(s)) == ALL,
    "copy": lambda s: copy.copy(s) == ALL == s.copy(),
    "deepcopy": lambda s: copy.deepcopy(s) == ALL,
    "iter": lambda s: sorted(s) == list(range(COUNT)),
    "len": lambda s: len(s) == COUNT,
    "bool": bool,
    "keys": lambda s: s.keys() == ALL.keys(),
    "values": lambda s: sorted(s.values()) == sorted(ALL.values()),
    "items": lambda s: s.items() == ALL.items(),
    "items and no items": lambda s: (
        all(s.items() != {o} for o in (5, "ab", (1, 2, 3), (1, 4))) and s.items() != 5
    ),
    "in items": lambda s: (
        (1, 3) in s.items() and not any(each in s.items() for each in ((1, 4), (-1, 3), (1, 3, 3), 5, "ab"))
    ),
    "subset of items": lambda s: s.items() >= {1: 3, 2: 6}.items(),
    "reversed": lambda s: list(reversed(s)) == list(s)[::-1],
    "in": lambda s: 77 in s and -1 not in s and "x" not in s and 1.0 in s,
    "get": lambda s: s.get(5) == 15 and s.get(-1) is None and s.get("x", 3) == 3,
    "get item": lambda s: s[4999] == 14997 and s[256] == 768 and s[0] == 0,
    "pop": lambda s: s.pop(5) == 15 and 5 not in s and len(s) == COUNT - 1,
    "popitem": lambda s: s.popitem() and len(s) == COUNT - 1,
    "set": lambda s: s.__setitem__(1, "mine") or (s[1] == "mine" and len(s) == COUNT),
    "delete": lambda s: s.__delitem__(1) or (1 not in s and len(s) == COUNT - 1),
    "setdefault": lambda s: s.setdefault(3, 0) == 9 and s.setdefault(-3, 7) == 7,
    "clear": lambda s: s.clear() or s == {},
    "repr": lambda s: eval(repr(s)) == ALL == eval(f"{s}"),
    "Counter": lambda s: collections.Counter(s) == collections.Counter(ALL),
    "OrderedDict": lambda s: collections.OrderedDict(s) == ALL,
    "ChainMap": lambda s: collections.ChainMap(s)[3] == 9,
    "match": lambda s: matched(s) == 9,
    "format_map": lambda s: "%(x)s" % (s | {"x": 1}) == "1",
}


def updated(target, source):
    target.update(source)
    return target


def matched(value):
    match value:
        case {3: found}:
            return found
    return None


@pytest.mark.parametrize("use", USES)
def test_is_a_dict_to_its_users(lazy, use):
    assert USES[use](lazy)


def test_text_keys(make_map):
    m = make_map("hash", "struct name", prologue="struct name { char text[8]; };", max_entries=600)
    m.update_batch([((f"k{i}",), i) for i in range(600)])
    seen = m.snapshot()
    assert seen == {(f"k{i}",): i for i in range(600)}
    assert dict(**{k.text: v for k, v in seen.items()}) == {f"k{i}": i for i in range(600)}


def test_looking_at_a_few_decodes_no_more(lazy):
    assert (lazy[3], 4 in lazy, lazy.get(-5), len(lazy)) == (9, True, None, COUNT)
    with pytest.raises(KeyError):
        _ = lazy[COUNT + 1]
    assert type(lazy) is LazySnapshot
    assert len(list(lazy)) == COUNT
    assert type(lazy) is LazySnapshot
    assert lazy == ALL
    assert type(lazy) is Snapshot


def test_outlives_its_map_and_does_not_follow_it(large):
    seen = large.snapshot()
    large.clear()
    large.close()
    assert seen == ALL


def test_structs_by_any_shape_of_their_key(make_map):
    m = make_map("hash", "struct point", "struct stats", prologue=POINT, max_entries=1000)
    m.update_batch({(x, -x): (x, 1, f"n{x}") for x in range(1000)})
    for seen in (m.snapshot(), Snapshot(m.snapshot().copy())):
        assert seen[3, -3] == {"count": 3, "flags": 1, "comm": "n3"}
        assert seen[5, -5].comm == "n5"
        assert (9, 9) not in seen
    assert json.loads(json.dumps(list(m.snapshot().values()), default=lambda r: r._asdict()))[0]["flags"] == 1
    assert m == {(x, -x): {"count": x, "flags": 1, "comm": f"n{x}"} for x in range(1000)}


class TestSubset:
    @pytest.fixture
    def m(self, make_map):
        m = make_map("hash", "struct point", "__u64", prologue=POINT, max_entries=8)
        m.update_batch({(1, 1): 10, (2, 2): 20})
        return m

    def test_a_map_holds_some_elements(self, m):
        assert m >= {(1, 1): 10}
        assert m >= {}
        assert m.items() >= {(1, 1): 10}.items()
        assert m.snapshot() >= {(1, 1): 10, (2, 2): 20}
        assert not m >= {(1, 1): 11}
        assert not m >= {(3, 3): 10}

    def test_a_map_holds_nothing_else(self, m):
        assert m <= {(1, 1): 10, (2, 2): 20, (3, 3): 30}
        assert not m <= {(1, 1): 10}

    def test_only_mappings_compare(self, m):
        with pytest.raises(TypeError):
            _ = m >= 3


class TestNumpy:
    np = pytest.importorskip("numpy")

    def test_integers(self, large):
        keys, values = large.to_numpy()
        assert (keys.dtype, values.dtype) == (self.np.uint32, self.np.uint64)
        assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == ALL
        values += 1  # the arrays belong to the caller
        large.update_batch((keys, values))
        assert large == {k: v + 1 for k, v in ALL.items()}

    def test_an_empty_map(self, make_map):
        keys, values = make_map("hash").to_numpy()
        assert (len(keys), len(values), values.dtype) == (0, 0, self.np.uint64)

    def test_structs(self, make_map):
        m = make_map("hash", "struct point", "struct stats", prologue=POINT, max_entries=100)
        m.update_batch({(x, -x): (x, 1, f"n{x}") for x in range(50)})
        keys, values = m.to_numpy()
        order = self.np.argsort(keys["x"])
        assert keys["y"][order].tolist() == [-x for x in range(50)]
        assert values["comm"][order][7] == b"n7"
        assert values.dtype.itemsize == 24
        values["count"] += 100
        m.update_batch((keys, values))
        assert m[7, -7] == {"count": 107, "flags": 1, "comm": "n7"}

    @pytest.mark.parametrize("type", ["percpu_hash", "percpu_array"])
    def test_a_row_has_a_value_for_each_cpu(self, make_map, type):
        m = make_map(type, value="__u32", max_entries=4)
        cpus = len(m[0]) if type == "percpu_array" else len(m.update_elem(0, 0) or m[0])
        m[0] = list(range(cpus))
        keys, values = m.to_numpy()
        assert values.shape == (len(keys), cpus)
        assert values[keys == 0].tolist() == [list(range(cpus))]
        m.update_batch((keys, values + self.np.uint32(1)))
        assert m[0] == list(range(1, cpus + 1))
        m.update_batch((keys, self.np.full(len(keys), 9)))
        assert m[0] == [9] * cpus

    def test_what_does_not_fit_is_refused(self, large):
        one = self.np.array([1])
        with pytest.raises(MapOverflowError, match=r"cannot store 4294967296 in map 'the_map' key \(__u32\)"):
            large.update_batch((one << 32, one))
        with pytest.raises(MapOverflowError, match="cannot store -1"):
            large.update_batch((one, -one))
        with pytest.raises(MapValueError, match="2 keys with 1 values"):
            large.update_batch((self.np.array([1, 2]), one))
        with pytest.raises(MapValueError, match="array of float64"):
            large.update_batch((one, one * 0.5))
        assert large == ALL


class Writer:
    """Inserts and deletes the odd keys as fast as it can. The even keys stay."""

    def __init__(self, m, count):
        self.m, self.count = m, count
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        from pytest_bpfmaps.libbpf import ffi, lib

        pairs = [
            (ffi.from_buffer(k.to_bytes(4, "little")), ffi.from_buffer(bytes(8)))
            for k in range(1, self.count, 2)
        ]
        while not self._stop.is_set():
            for key, value in pairs:
                lib.bpf_map_update_elem(self.m.fd, key, value, 0)
            for key, _ in pairs:
                lib.bpf_map_delete_elem(self.m.fd, key)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("way", ["batch", "one by one"])
@pytest.mark.parametrize("type", ["hash", "lru_hash"])
def test_reading_while_a_writer_inserts_and_deletes(make_map, monkeypatch, way, type):
    count = 200
    m = make_map(type, max_entries=4 * count)
    stay = {k: k for k in range(0, count, 2)}
    m.update_batch(stay)
    if way == "one by one":
        monkeypatch.setattr("pytest_bpfmaps.maps.batch.BatchMap._lookup_batches", lambda the_map: None)
    restarts = 0
    with Writer(m, count):
        for _ in range(20):
            seen = m.snapshot()
            assert seen.complete
            # an LRU map may evict even keys, but nobody inserts them again: the rest was always there
            stayed = {k: v for k, v in stay.items() if m.get(k) == v}
            assert seen.items() >= stayed.items()
            assert set(seen) <= set(range(count))
            assert type != "hash" or (stayed == stay and m >= stay)
            assert 0 <= len(m) <= count
            restarts += seen.restarts
    if way == "batch":
        assert restarts == 0
    m.clear()
    assert m == {}


def test_the_walk_says_when_the_key_where_it_stood_was_deleted(make_map, monkeypatch):
    m = make_map("hash", max_entries=64)
    m.update_batch({k: k for k in range(40)})
    monkeypatch.setattr("pytest_bpfmaps.maps.batch.BatchMap._lookup_batches", lambda the_map: None)
    first = m.get_next_key()
    order = list(m)
    assert order[0] == first
    ask, gone = m._next_raw_key, order[20].to_bytes(4, "little")

    def deletes_where_it_stands(key):
        if key == gone and order[20] in m:
            del m[order[20]]
        return ask(key)

    monkeypatch.setattr(m, "_next_raw_key", deletes_where_it_stands)
    seen = m.snapshot()
    assert seen.restarts == 1
    assert seen.complete
    assert seen == {k: k for k in range(40) if k != order[20]}


def test_a_walk_that_never_ends_is_ended(make_map, monkeypatch, caplog):
    m = make_map("hash", max_entries=8)
    m.update_batch({1: 1, 2: 2})
    monkeypatch.setattr("pytest_bpfmaps.maps.batch.BatchMap._lookup_batches", lambda the_map: None)
    monkeypatch.setattr(m, "_next_raw_key", lambda key: (1).to_bytes(4, "little"))
    seen = m.snapshot()
    assert not seen.complete
    assert "map 'the_map' (hash)" in caplog.text


def test_a_refusal_is_not_taken_for_the_end(make_map):
    m = make_map("hash")
    m.close()
    with pytest.raises((MapError, ValueError)):
        m.snapshot()
