"""The guest's first process: mount, greet the gateway, take the job, become an execnet worker.

A script by itself: it must not import this package, whose modules the guest's pytest wants to import first.
Speaks JSON lines with the gateway through the virtio-serial port ``bpfmaps.control``; the worker's stdin and
stdout are the port ``bpfmaps.stream``; process 1 goes on with ``bpfmaps.alarm``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import glob
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any

PORTS = ("bpfmaps.control", "bpfmaps.stream", "bpfmaps.alarm")
TAG = "bpfmaps.host"  # by which the guest mounts the host's files
OUTPUT = "bpfmaps.output"  # of the worker, where pytest does not capture it
# last words, which the host looks for in the console
CANNOT_MOUNT = "cannot mount the host's files"
NO_CARD = "cannot drive the network card"
STACKS = signal.SIGRTMAX  # on which the worker writes its Python stacks; supervisor.py sends it
HOST_FILES = 9  # the host's plain root, opened by init.sh
SIOCADDRT, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP, RTF_UP, RTF_GATEWAY = 1, 1, 2
VIRTIO_NET = 1  # the device's number, include/uapi/linux/virtio_ids.h
# QEMU's user-mode network: what it expects of a guest, and what it offers
ADDRESS, MASK, GATEWAY, NAME_SERVER = "10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3"
CARD = "/sys/class/net/eth0"
MS_BIND = 4096
RB_AUTOBOOT = 0x1234567

# type, target, options: what BPF programs and their tests expect to find
MOUNTS = (
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
    ("cgroup2", "/sys/fs/cgroup", None),
    ("debugfs", "/sys/kernel/debug", None),
    ("tracefs", "/sys/kernel/tracing", None),
    ("securityfs", "/sys/kernel/security", None),
)
libc = ctypes.CDLL(None, use_errno=True)


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None
) -> None:
    """mount(2); a file system or folder that this kernel lacks is left out."""
    encoded = [s if s is None else s.encode() for s in (source, target, kind, options)]
    libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3])


def mount_all(release: str, modules: str) -> None:
    """Mount the kernel's file systems, and its modules."""
    for kind, target, options in MOUNTS:
        if target.startswith("/dev/"):
            os.makedirs(target, exist_ok=True)
        mount(kind, target, kind, 0, options)
    mount_modules(release, modules)


def mount_modules(release: str, modules: str) -> None:
    """Put the kernel's modules, if it has any, where modprobe looks for them."""
    if modules:
        folder = f"/lib/modules/{release}"
        os.makedirs(folder, exist_ok=True)
        mount(f"{modules}/lib/modules/{release}", folder, flags=MS_BIND)


def loopback_up() -> None:
    """Bring the interface lo up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        interface_up(sock, b"lo")


def interface_up(sock: socket.socket, name: bytes) -> None:
    """Set an interface's flag IFF_UP, netdevice(7)."""
    flags = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", name, 0)), 16)[0]
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | IFF_UP))


def network_up() -> None:
    """Configure the network card, if this machine has one."""
    devices = glob.glob("/sys/bus/virtio/devices/*/device")
    if VIRTIO_NET not in (int(open(path).read(), 16) for path in devices):  # noqa: SIM115
        return
    if not os.path.exists(CARD):
        os.system("PATH=/sbin:/usr/sbin:/bin:/usr/bin exec modprobe virtio_net")
    if not os.path.exists(CARD):
        raise OSError(f"bpfmaps: this kernel {NO_CARD} (it lacks virtio_net)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, value in ((SIOCSIFADDR, ADDRESS), (SIOCSIFNETMASK, MASK)):
            fcntl.ioctl(sock, request, struct.pack("16s16s8x", b"eth0", sockaddr(value)))
        interface_up(sock, b"eth0")
        every, flags = sockaddr("0.0.0.0"), RTF_UP | RTF_GATEWAY
        route = struct.pack("L16s16s16sH62x", 0, every, sockaddr(GATEWAY), every, flags)  # struct rtentry
        fcntl.ioctl(sock, SIOCADDRT, route)


def sockaddr(address: str) -> bytes:
    """A ``struct sockaddr_in`` without a port."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def use_name_server() -> None:
    """Have names looked up through QEMU, which asks whom the host asks. The host's file may be a link."""
    if os.path.exists(CARD):
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/etc/resolv.conf")
        with open("/etc/resolv.conf", "w") as file:
            file.write(f"nameserver {NAME_SERVER}\n")


def open_port(name: str) -> int:
    """A descriptor of the virtio-serial port called `name`."""
    return os.open(find_port(name), os.O_RDWR | os.O_CLOEXEC)


def find_port(name: str) -> str:
    """The device of the virtio-serial port called `name`; no udev is needed to find it."""
    while True:  # QEMU tells the names of the ports one by one; the gateway has a deadline
        for path in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(path) as file:
                if file.read().strip() == name:
                    return f"/dev/{path.split('/')[-2]}"
        time.sleep(0.005)


def read_line(fd: int) -> dict[str, Any]:
    """The next JSON line of `fd`; empty ones are none."""
    data = b""
    while not (data.strip() and data.endswith(b"\n")):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            raise EOFError("the gateway is gone")
        data += chunk
    line: dict[str, Any] = json.loads(data)
    return line


def apply(job: dict[str, Any], host_files: int) -> None:
    """Make this process look like one that the host's pytest had started.

    `host_files`, which is closed, is a descriptor of the host's plain root.
    """
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    sys.path[:] = job["path"]
    os.umask(job["umask"])
    socket.sethostname(job["hostname"])
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    use_name_server()
    for folder in job["plain"]:
        # The overlay may remember that a file was missing there; the plain view asks the host each time.
        mount(f"/proc/self/fd/{host_files}{folder}", folder, flags=MS_BIND)
    os.close(host_files)
    place_config(job["env"].get("BPFMAPS_KERNEL_CONFIG"))
    os.chdir(job["cwd"])


def place_config(path: str | None) -> None:
    """Put the kernel's configuration where libbpf looks for what an object leaves open."""
    if path:
        link = f"/boot/config-{os.uname().release}"
        os.makedirs("/boot", exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(path, link)


def serve(job: dict[str, Any], stream: int) -> None:
    """Be an execnet worker on `stream` until it closes."""
    os.dup2(stream, 0)
    os.dup2(stream, 1)
    os.close(stream)
    sys.argv = ["-c"]
    sys.stdin, sys.stdout = os.fdopen(0, "r", 1, closefd=False), os.fdopen(1, "w", 1, closefd=False)
    from execnet import gateway_base

    model = gateway_base.get_execmodel(job["execmodel"])
    io: Any = gateway_base.init_popen_io(model)
    gateway_base.serve(io, id=job["id"])


def quiet_console() -> None:
    """Leaves warnings and worse on the console, which shows more while the kernel boots."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/printk", "w") as file:
        file.write("5")


def limit_hangs(timeout: float) -> None:
    """Have the kernel panic when a CPU or a task hangs for a third of the time that a test has.

    By then it is the test's fault, and the report says which kernel function it hangs in. Sooner than the
    kernel would by itself, 20 s, is too soon: an emulated guest whose host is busy stands still for seconds.
    """
    third = max(round(timeout / 3), 20)
    for path, seconds in (
        ("/proc/sys/kernel/watchdog_thresh", min(third // 2, 60)),  # a soft lockup is twice that
        ("/proc/sys/kernel/hung_task_timeout_secs", third),
        ("/proc/sys/kernel/hung_task_check_interval_secs", third // 4),
        ("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", min(third, 300)),
    ):
        with contextlib.suppress(OSError), open(path, "r+") as file:  # a kernel without that detector
            if file.read().strip() != str(seconds):  # else it takes milliseconds to start all anew
                file.seek(0)
                file.write(str(seconds))


def main() -> None:
    """Process 1: everything, then the end of the machine."""
    release = os.uname().release
    mount_all(release, sys.argv[1] if len(sys.argv) > 1 else "")
    quiet_console()
    loopback_up()
    network_up()
    control, stream, alarm = map(open_port, PORTS)
    hello = {"release": release, "uptime": float(open("/proc/uptime").read().split()[0])}  # noqa: SIM115
    os.write(control, json.dumps({"hello": hello}).encode() + b"\n")
    job = read_line(control)
    apply(job, HOST_FILES)
    written, writes = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.setsid()
        os.close(alarm)
        os.close(written)
        work(job, control, stream, writes)
        os._exit(0)
    for fd in (control, stream, writes):
        os.close(fd)
    from pytest_bpfmaps.vm.guest.supervisor import watch

    watch(alarm, worker, written)


def work(job: dict[str, Any], control: int, stream: int, stacks: int) -> None:
    """Be the worker, who writes its `stacks` when asked."""
    limit_hangs(job["timeout"])
    if job["output"]:
        output = open_port(OUTPUT)
        os.dup2(output, 2)
        os.close(output)
    faulthandler.register(STACKS, file=stacks)
    os.environ["BPFMAPS_CONTROL_FD"] = str(control)
    serve(job, stream)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()  # to the console; an exit of process 1 would add a panic to it
    libc.reboot(RB_AUTOBOOT)
