"""Tests pins: persistence, sharing between loads and processes, reuse by name, and no leftovers."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pinned_counts import HEAD, code

from pytest_bpfmaps import ClosedError, LoadError, MapError
from pytest_bpfmaps.harness import Bpf
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.matrix.compilers import compiler_for

UNPINNED = """
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64);
} a_name_of_many_letters SEC(".maps");
"""
FRAME = bytes(64)


def live_map_ids():
    ids, at = set(), ffi.new("uint32_t *")
    while lib.bpf_map_get_next_id(at[0], at) == 0:
        ids.add(at[0])
    return ids


@pytest.fixture
def own_bpf(bpf):
    """Makes a second fixture, for tests that check what is left after it is closed."""
    return Bpf(compiler_for(None), bpf._folders)


@pytest.fixture
def load(bpf):
    """Loads C text with includes and licence, by the fixture `bpf` or another."""

    def load(text, by=bpf, **options):
        return by.load(code=HEAD + text, **options)

    return load


# tests that pin, close and open again


def test_values_outlive_everything_that_held_the_map(bpf, load):
    first = load(code())
    counts = first.maps.counts
    counts.unpin()  # libbpf made this pin by name
    counts.update_batch({i: i * i for i in range(5)})
    number = counts.id
    counts.pin("kept")
    assert counts.pins == (f"{bpf.pin_root}/kept",)
    first.close()

    again = bpf.pinned("kept")
    assert again.id == number
    assert again == {i: i * i for i in range(5)}
    again.unpin()
    again.close()
    bpf.wait_until(lambda: number not in live_map_ids(), timeout=60)


def test_without_a_pin_they_do_not(bpf, load):
    first = load(code())
    number = first.maps.counts.id
    first.maps.counts.unpin()
    first.close()
    bpf.wait_until(lambda: number not in live_map_ids(), timeout=60)
    with pytest.raises(MapError, match=rf"cannot open map id {number}: ENOENT"):
        bpf.map_by_id(number)


def test_a_pin_in_a_folder_and_by_absolute_path(bpf, load):
    counts = load(code()).maps.counts
    counts.pin("a/b/c")
    other = bpf.pin_root / "other"
    counts.pin(other)
    counts.pin("./d/e")
    assert bpf.pinned("a/b/c").id == bpf.pinned("d/e").id == bpf.pinned(other).id == counts.id
    counts.unpin(other)
    assert sorted(os.listdir(bpf.pin_root / "a/b")) == ["c"]
    assert not other.exists()


# tests of one map in two programs or two processes


def test_two_programs_talk_through_a_map_pinned_by_name(load):
    one, two = load(code("one", key=1)), load(code("two", key=2))
    assert one.maps.counts.id == two.maps.counts.id
    one.programs.one.run(FRAME)
    two.programs.two.run(FRAME, repeat=3)
    assert one.maps.counts == {1: 1, 2: 3}
    assert two.maps.counts == {1: 1, 2: 3}


CHILD = """
import sys
from pytest_bpfmaps.maps import pinned_map

with pinned_map(sys.argv[1]) as counts:
    counts[1] += 10
    counts[2] = counts[1] * 2
"""


def test_two_processes_talk_through_a_pinned_map(bpf, load):
    counts = load(code()).maps.counts
    counts[1] = 5
    subprocess.run([sys.executable, "-c", CHILD, bpf.pin_root / "counts"], check=True, env=child_env())
    assert counts == {1: 15, 2: 30}


def child_env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_fixtures_do_not_meet_unless_they_share_a_folder(bpf, load, own_bpf):
    with own_bpf:
        mine, theirs = load(code()).maps.counts, load(code(), by=own_bpf).maps.counts
        assert mine.id != theirs.id
        shared = load(code("again"), pin_root=own_bpf.pin_root).maps.counts
        assert shared.id == theirs.id
        shared[4] = 4
        assert (theirs[4], 4 in mine) == (4, False)


def test_a_pin_path_can_be_set_before_load(bpf):
    opened = bpf.open(code=HEAD + UNPINNED)
    counts = opened.maps.a_name_of_many_letters
    assert counts.pin_path is None
    counts.pin_path = bpf.pin_root / "chosen"
    with opened.load() as obj:
        number = obj.maps.a_name_of_many_letters.id
        assert obj.maps.a_name_of_many_letters.pins == (f"{bpf.pin_root}/chosen",)
    assert bpf.pinned("chosen").id == number


def test_pinning_by_name_can_be_switched_off(bpf):
    opened = bpf.open(code=HEAD + code())
    opened.maps.counts.pin_path = None
    with opened.load():
        assert "counts" not in os.listdir(bpf.pin_root)


# tests of errors


def test_a_folder_that_is_on_no_bpf_file_system(load, tmp_path):
    with pytest.raises(LoadError, match="not on BPF FS"):
        load(code(), pin_root=tmp_path)


def test_a_name_that_is_taken(load):
    counts = load(code()).maps.counts
    with pytest.raises(MapError, match=r"(?s)cannot pin map 'counts' at .*/counts: EEXIST") as caught:
        counts.pin()
    assert caught.value.errno == errno.EEXIST


def test_a_path_on_another_file_system(load, tmp_path):
    with pytest.raises(MapError, match=r"(?s)cannot pin .*bpf file system.*bpf\.pin_root") as caught:
        load(code()).maps.counts.pin(tmp_path / "x")
    assert caught.value.errno == errno.EPERM


def in_other_mounts(work):
    """Returns the result of `work` in a thread with its own mounts, without one on /sys/fs/bpf."""

    def worker():
        assert lib.unshare(0x20000) == 0  # CLONE_NEWNS
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        while os.path.ismount("/sys/fs/bpf"):
            subprocess.run(["umount", "-l", "/sys/fs/bpf"], check=True)
        return work()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(worker).result()


def test_a_path_where_no_bpf_file_system_is_mounted(load):
    counts = load(code()).maps.counts
    with pytest.raises(MapError, match=r"(?s)cannot pin .*'mount -t bpf bpf /sys/fs/bpf'; .*bpf\.pin_root"):
        in_other_mounts(lambda: counts.pin("/sys/fs/bpf/x"))


def test_a_pin_where_one_is(bpf, load):
    counts = load(code()).maps.counts
    counts.pin("taken")
    with pytest.raises(MapError, match=r"(?s)cannot pin .*EEXIST.*remove the file of that name first"):
        counts.pin("taken")


def test_unpinning_what_is_not_pinned(bpf, load):
    counts = load(code()).maps.counts
    counts.unpin()
    for arguments in ((), ("nothing",)):
        with pytest.raises(MapError, match="cannot unpin") as caught:
            counts.unpin(*arguments)
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(MapError, match=r"(?s)cannot open the pinned map.*-> give the path of a pin"):
        bpf.pinned("nothing")
    with pytest.raises(MapError, match="cannot open the pinned map") as caught:
        bpf.pinned("/proc/self/status")  # which is there
    assert "give the path of a pin" not in str(caught.value)


def test_what_is_pinned_and_no_map(bpf, load):
    program = load(code()).programs.count
    assert lib.bpf_obj_pin(lib.bpf_program__fd(program._handle), bytes(bpf.pin_root / "program")) == 0
    with pytest.raises(MapError, match=r"cannot open the pinned map .*/program: it is a bpf-prog"):
        bpf.pinned("program")


# tests of a name among all maps of the kernel


def test_maps_by_name(bpf, load):
    one, two = (load(UNPINNED).maps.a_name_of_many_letters for _ in range(2))
    found = bpf.maps_by_name("a_name_of_many_letters")
    assert [m.id for m in found] == sorted([one.id, two.id])
    found[0][1] = 2
    assert {tuple(one.items()), tuple(two.items())} == {((1, 2),), ()}
    assert bpf.maps_by_name("no_such_map_at_all") == []


# tests that nothing stays


def mounts_in(folder):
    """Returns the mounts at or below `folder`. Other processes mount things, too."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if Path(point).is_relative_to(folder)]


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_close(load, own_bpf, bpf):
    load(code(""))  # makes what a process makes only once
    before = descriptors()
    outside = bpf.pin_root / "outside"
    with own_bpf:
        counts = load(code(), by=own_bpf).maps.counts
        counts.pin("inside")
        counts.pin(outside)
        load(code(), by=own_bpf, pin_root=bpf.pin_root / "sub")
        folder, number = own_bpf.pin_root, counts.id
        # some kernels create iterators there
        assert set(os.listdir(folder)) - {"maps.debug", "progs.debug"} == {"counts", "inside"}
        assert outside.exists()
    assert not folder.exists()
    assert not outside.exists()
    assert os.listdir(bpf.pin_root / "sub") == []
    assert mounts_in(folder) == []
    assert descriptors() == before
    with pytest.raises(ClosedError, match="the test is over"):
        _ = own_bpf.pin_root
    bpf.wait_until(lambda: number not in live_map_ids(), timeout=60)


def test_pins_of_others_stay(bpf, load, own_bpf):
    mine = load(code()).maps.counts
    with own_bpf:
        theirs = load(code(), by=own_bpf, pin_root=bpf.pin_root).maps.counts
        assert theirs.id == mine.id
    assert bpf.pinned("counts").id == mine.id


FAILING = """
CODE = {code!r}

def test_fails(bpf):
    counts = bpf.load(code=CODE).maps.counts
    counts.pin({outside!r})
    print("id", counts.id, "root", bpf.pin_root)
    assert counts[77] == 1
"""


def test_nothing_is_left_after_a_test_that_fails(tmp_path):
    """On this machine only: a guest would start pytest for minutes, and the teardown is the same."""
    with Bpf(compiler_for(None)) as own:
        outside = own.pin_root / "outside"
        (tmp_path / "test_it.py").write_text(FAILING.format(code=HEAD + code(), outside=str(outside)))
        done = run_python("-m", "pytest", "-s", "-p", "no:cacheprovider", tmp_path)
        assert done.returncode == 1, done.stdout + done.stderr
        words = done.stdout.split("id ", 1)[1].split()
        number, root = int(words[0]), Path(words[2])
        assert not root.exists()
        assert not outside.exists()
        assert mounts_in(root) == []
        own.wait_until(lambda: number not in live_map_ids(), timeout=60)


KILLED = """
import os, sys
from pytest_bpfmaps.matrix.compilers import compiler_for
from pytest_bpfmaps.harness import Bpf

own = Bpf(compiler_for(None))
counts = own.create_map("array", key=4, value=8, max_entries=1)
counts.pin("here")
print(counts.id, own.pin_root, flush=True)
os.kill(os.getpid(), 9)
"""


def test_nothing_is_left_after_a_process_that_is_killed(bpf):
    done = run_python("-c", KILLED)
    assert done.returncode == -9, done.stdout + done.stderr
    number, root = done.stdout.split()
    assert not Path(root).exists()
    assert mounts_in(root) == []
    bpf.wait_until(lambda: int(number) not in live_map_ids(), timeout=60)


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=child_env(), check=False
    )
