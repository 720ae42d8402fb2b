"""Tests what a guest can't do to this machine, even as root, and what other users can't do to a guest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE, use_new_cache
from qemus import qemus_for, wait_until

from pytest_bpfmaps import paths
from pytest_bpfmaps.vm.boot import saved_states, warm
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge
from pytest_bpfmaps.vm.machine.qemu import MachineConfig

NOBODY = 65534
FIXTURES = """
    import os, pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release
"""

WRITES = """
    import ctypes, errno, os, pathlib, stat, traceback
    import pytest

    HERE, TARGET = os.getcwd(), os.environ["TARGET"]
    MS_RDONLY, MS_REMOUNT, MNT_DETACH, CLONE_NEWNS = 1, 32, 2, 0x20000
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source, target, kind=None, flags=0, options=None):
        words = [w if w is None else w.encode() for w in (source, target, kind, options)]
        if libc.mount(*words[:3], flags, words[3]) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)

    def attempts(folder):
        "Returns what writes, by name: each must change nothing on the host."
        file = f"{folder}/file"
        return {
            "truncate": lambda: os.close(os.open(file, os.O_WRONLY | os.O_TRUNC)),
            "append": lambda: os.close(os.open(file, os.O_WRONLY | os.O_APPEND)),
            "read and write": lambda: os.close(os.open(file, os.O_RDWR)),
            "create": lambda: os.close(os.open(f"{folder}/new", os.O_WRONLY | os.O_CREAT)),
            "chmod": lambda: os.chmod(file, 0o777),
            "chown": lambda: os.chown(file, 1, 1),
            "times": lambda: os.utime(file, (1, 1)),
            "xattr": lambda: os.setxattr(file, "user.written", b"x"),
            "link": lambda: os.link(file, f"{folder}/linked"),
            "symlink": lambda: os.symlink("file", f"{folder}/symlink"),
            "mkdir": lambda: os.mkdir(f"{folder}/made"),
            "mknod": lambda: os.mknod(f"{folder}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
            "rename": lambda: os.rename(file, f"{folder}/renamed"),
            "unlink": lambda: os.unlink(f"{folder}/other"),
            "rmdir": lambda: os.rmdir(f"{folder}/empty"),
        }

    def expect_refusals(folder, known=(errno.EROFS,)):
        "Checks that QEMU refuses. For the guest's kernel the mount is writable."
        assert not os.statvfs(folder).f_flag & os.ST_RDONLY
        assert os.path.exists(f"{folder}/file")
        for name, attempt in attempts(folder).items():
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno in known, (name, caught.value)

    ROOTS = ["", "/proc/self/root", "/proc/1/root", "/proc/self/cwd/" + "../" * 40]

    @pytest.mark.parametrize("n", range(len(ROOTS)))
    def test_writes_go_to_memory(bpf_kernel, n):
        for name, attempt in attempts(f"{ROOTS[n]}{TARGET}/overlaid{n}").items():
            try:
                attempt()
            except OSError as refused:  # tmpfs keeps such attributes since Linux 6.6
                assert (name, refused.errno) == ("xattr", errno.EOPNOTSUPP)
        assert "renamed" in os.listdir(f"{TARGET}/overlaid{n}")

    def test_a_view_of_the_host_that_the_guest_mounts(bpf_kernel, tmp_path):
        tags = [pathlib.Path(p).read_bytes().rstrip(b"\\0").decode() for p in
                pathlib.Path("/sys/bus/virtio/drivers/9pnet_virtio").glob("virtio*/mount_tag")]
        assert "bpfmaps.host" in tags
        for tag in tags:
            with pytest.raises(OSError) as caught:
                mount(tag, str(tmp_path), "9p", 0, "trans=virtio,version=9p2000.L,msize=131072")
            assert caught.value.errno == errno.EBUSY  # each of these is mounted, and busy

    def look_beneath():
        "Takes the root away, in a mount namespace of its own, and writes to what it hid."
        objects = os.environ["OBJECTS"]
        assert libc.unshare(CLONE_NEWNS) == 0
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        assert libc.umount2(b"/", MNT_DETACH) == 0
        assert libc.setns(namespace, CLONE_NEWNS) == 0  # moves to the root that is left
        for view in os.environ["VIEWS"].split():
            assert os.path.ismount(view)
            mount("none", view, None, MS_REMOUNT)
            expect_refusals(f"{view}{TARGET}/plain")
        assert os.path.isdir(f"/run/host{objects}")

    def test_the_views_that_the_guest_stands_on(bpf_kernel):
        child = os.fork()
        if child == 0:
            try:
                look_beneath()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(OSError) as caught:  # the file is on that mount
            os.close(os.open(f"{os.environ['OBJECTS']}/new", os.O_WRONLY | os.O_CREAT))
        assert caught.value.errno == errno.EROFS

    def test_a_chroot_is_no_way_out(bpf_kernel, tmp_path):
        inside = os.open("/", os.O_RDONLY)
        os.chroot(tmp_path)  # leaves a chroot: the working directory is not below the new root
        os.fchdir(inside)
        try:
            for _ in range(64):
                os.chdir("..")
            os.chroot(".")
            assert not os.path.exists("/run/host")
            assert os.path.samefile("/", inside)
        finally:
            os.fchdir(inside)
            os.chroot(".")
            os.chdir(HERE)
"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))


def make_target(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("file", "other"):
        (folder / name).write_text("of the host")
        (folder / name).chmod(0o640)


def seen(folder: Path) -> list[tuple[object, ...]]:
    """Returns everything that can be seen of what is below `folder`."""
    found: list[tuple[object, ...]] = []
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        facts = (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns)
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path), *facts, content, tuple(os.listxattr(path, follow_symlinks=False))))
    return found


@pytest.mark.parametrize(("way", "views"), [("warm", "/run/host"), ("virtme-ng", "/ /run/host")])
def test_nothing_that_a_guest_writes_arrives(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, views: str
) -> None:
    target = tmp_path / "target"
    for name in (*(f"overlaid{n}" for n in range(4)), "plain"):
        make_target(target / name)
    paths.objects_dir().mkdir(exist_ok=True)
    monkeypatch.setenv("TARGET", str(target))
    monkeypatch.setenv("VIEWS", views)
    monkeypatch.setenv("OBJECTS", str(paths.objects_dir()))
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(test_writes=WRITES)
    before = seen(target)
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", f"--bpf-vm={way}")
    result.assert_outcomes(passed=7)
    assert seen(target) == before
    assert not (paths.objects_dir() / "new").exists()


def test_a_guest_has_no_door_for_others(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(
        """
        import os, socket

        def test_calls_and_waits_for_the_end(bpf_kernel):
            with socket.create_connection(("10.0.2.2", int(os.environ["PORT"])), timeout=600) as caller:
                caller.settimeout(None)
                assert caller.recv(1) == b""
        """
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        command = [sys.executable, "-m", "pytest", "--bpf-kernel=6.1", "--bpf-vm-network"]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            server.settimeout(600)
            with server.accept()[0]:  # the test runs, and everything that a guest needs
                (qemu,) = qemus_for(pytester.path)
                gateway = parent_of(qemu)
                processes = (qemu, gateway, run.pid)
                assert [door for process in processes for door in doors_of(process)] == []
                for process in processes:
                    assert_private(process)
            output, _ = run.communicate(timeout=600)
        finally:
            run.kill()
            run.wait()
    assert run.returncode == 0, output


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def doors_of(pid: int) -> list[str]:
    """Returns a process's sockets that have a name in the file system or listen, proc_net(5)."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
        for fields in map(str.split, Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]):
            if not inodes.isdisjoint(fields[8:10]) and (kind[:3] != "tcp" or fields[3] == "0A"):
                found.append(f"{kind} {fields}")
    for fields in map(str.split, Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]):
        if fields[6] in inodes and len(fields) > 7:
            found.append(f"unix {fields}")
    return found


def assert_private(pid: int) -> None:
    """Checks that this user can open its descriptors (console, journal, memory), and no other user can."""
    files = [path for path in Path(f"/proc/{pid}/fd").iterdir() if "memfd" in os.readlink(path)]
    for path in files:
        os.close(os.open(path, os.O_RDONLY))
    tries = "import os, sys\nfor path in sys.argv[1:]:\n    try:\n        os.open(path, os.O_RDONLY)\n"
    tries += "    except PermissionError:\n        pass\n    else:\n        print(path)\n"
    names = [f"/proc/{pid}/{name}" for name in ("fd", "mem", "environ", "map_files", "root")]
    other = subprocess.run(
        ["/usr/bin/python3", "-c", tries, *names, *map(str, files)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == ""


def test_a_state_is_private(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    pytester.runpytest_subprocess("--bpf-kernel=6.1").assert_outcomes(passed=1)
    found = [state for state in saved_states.states() if state.facts()["kernel"] == "6.1"]
    assert found
    for state in found:
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in state.path.iterdir()}
        assert modes == dict.fromkeys(("manifest.json", "memory", "devices"), "0o600")
        assert (state.path.stat().st_mode & 0o777, state.path.stat().st_uid) == (0o700, os.geteuid())


def test_a_state_that_somebody_else_left_in_the_cache_is_not_restored(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    use_new_cache(cache, monkeypatch)
    kernel = Catalogue().get("6.1")
    shape = MachineConfig(kvm=judge(kernel).kvm)
    theirs = warm.state_for(kernel, shape)
    theirs.path.mkdir(parents=True)
    theirs.memory.write_bytes(bytes(4096))
    theirs.devices.write_bytes(b"anything")
    theirs.write_manifest("6.1", kernel.release, ["/bin/sh"])
    assert theirs.is_current()
    for path in (theirs.path, *theirs.path.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile("def test_x(bpf_kernel): pass")
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            f"VmError: will not restore a guest from {theirs.path}: it belongs to user {NOBODY}, *",
            "*-> delete it; $BPFMAPS_CACHE should name a folder of your own",
        ]
    )
    wait_until(lambda: not qemus_for(pytester.path))
