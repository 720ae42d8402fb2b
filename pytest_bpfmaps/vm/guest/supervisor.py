"""The guest's first process. It waits for the worker's end, and says on demand where all tasks stand.

For that it needs nothing of the test's process, and nothing of the host's files: they may be what hangs.

In a guest whose state is saved it is a separate Python from the start, with this file alone. If it had
imported everything and then forked the worker, the worker would have to copy each page that it changes. That
takes long under emulation. Each state of a guest has its memory, so it imports little: json, contextlib and
collections.abc would be a megabyte.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PF_KTHREAD = 0x00200000
PAUSE = 0.3  # seconds without another byte: then a stack is complete
MOST_TASKS, MOST_FORKS = 40, 4
ENDED = "bpfmaps: the worker ended with status"  # gateway/guest_exit.py looks for it in the console
NO_PYTHON = "none: its threads are stopped, block signals or hang in the kernel, or a test closed its files"
STACKS = signal.SIGRTMAX  # the worker then writes its Python stacks: init.py
RB_AUTOBOOT = 0x1234567
# The worker's descriptors: it says a path on the first, waits on the second until process 1 has used the
# path, and writes its stacks to the third.
SAY, DONE, STACKS_TO = 3, 4, 5
ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), ord('"'), ord("\\"))}  # in JSON: RFC 8259
libc = ctypes.CDLL(None)


def main(command: list[str]) -> None:
    """Runs `command`, which is the worker, until it ends."""
    said, say = os.pipe()
    done, do = os.pipe()
    written, writes = os.pipe()
    moves = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((say, SAY), (done, DONE), (writes, STACKS_TO))]
    worker = os.posix_spawn(command[0], command, os.environ, file_actions=moves, setsid=True)
    for fd in (say, done, writes):
        os.close(fd)
    port = os.read(said, 512)
    if port:  # empty when the worker has ended
        alarm = os.open(port, os.O_RDWR | os.O_CLOEXEC)
        os.write(do, b"1")
        if root := os.read(said, 512):
            os.chroot(root)  # the kernel runs modprobe in the root of process 1
            os.chdir("/")
            os.write(do, b"1")
        watch(alarm, worker, written)


def tell(path: str) -> None:
    """Tells process 1, in the worker, the port of the alarm, and later the root that it should share."""
    os.write(SAY, path.encode())
    os.read(DONE, 1)


def watch(port: int, worker: int, python: int) -> None:
    """Reaps children and answers the alarm until `worker` ends.

    It reads the worker's stacks from `python`.
    """
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # Real-time priority, so that it answers even while a process of a test uses every CPU.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(99))
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(port, select.POLLIN)
    while (status := reap(worker)) is None:
        for fd, event in poll.poll():
            if fd == ended:
                os.read(ended, 512)
            elif event & select.POLLIN:
                seconds = float(os.read(port, 512))
                sections = answer(worker, python, seconds) if seconds else []  # with 0, any answer will do
                os.write(port, as_json(sections).encode() + b"\n")
            else:
                poll.unregister(port)  # the gateway has ended, and QEMU will end with it
    print(ENDED, status, file=sys.stderr)


def as_json(sections: list[tuple[str, str]]) -> str:
    """Returns titles and texts as a list of lists."""
    pairs = (", ".join(f'"{text.translate(ESCAPES)}"' for text in pair) for pair in sections)
    return "[" + ", ".join(f"[{pair}]" for pair in pairs) + "]"


def answer(worker: int, python: int, seconds: float) -> list[tuple[str, str]]:
    """Returns `stacks`, or why there are none."""
    try:
        return stacks(worker, python, seconds)
    except (OSError, LookupError, ValueError) as error:  # a task may end meanwhile
        return [("stacks", repr(error))]


def reap(worker: int) -> int | None:
    """Reaps every process that has ended. Returns the worker's exit status if it has."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                return os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass
    return None


def able_thread(worker: int, signum: int) -> int:
    """Returns a thread of the worker that can take the signal: it neither blocks it nor hangs."""
    for task in sorted(map(int, os.listdir(f"/proc/{worker}/task"))):
        try:
            lines = read(f"/proc/{worker}/task/{task}/status").splitlines()
        except OSError:  # the thread has ended meanwhile
            continue
        facts = dict(line.split(":\t", 1) for line in lines)
        if facts["State"][0] != "D" and not int(facts["SigBlk"], 16) >> (signum - 1) & 1:
            return task
    return worker


def stacks(worker: int, python: int, seconds: float) -> list[tuple[str, str]]:
    """Returns titles and texts: Python stacks of the worker and its forks, kernel stacks, kernel log."""
    forks = list(forks_of(worker))[:MOST_FORKS]
    return [
        ("Python stacks of the worker", python_stacks(worker, python, seconds)),
        *((f"Python stacks of its fork {pid}", python_stacks(pid, python, min(seconds, 1))) for pid in forks),
        ("kernel stacks of processes", "\n".join(kernel_stacks(worker))),
        ("kernel log: blocked tasks, CPUs", kernel_log()),
    ]


def forks_of(worker: int) -> Iterator[int]:
    """Gives the processes that the worker forked, and that run no other program: they have its handlers."""
    own = read(f"/proc/{worker}/cmdline")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = read(f"/proc/{name}/cmdline")
        except OSError:  # the process has ended meanwhile
            continue
        if int(name) not in (worker, os.getpid()) and own and command == own:
            yield int(name)


def python_stacks(process: int, fd: int, seconds: float) -> str:
    """Returns what `process` writes to the other end of `fd` within `seconds`."""
    libc.tgkill(process, able_thread(process, STACKS), STACKS)
    data, poll = b"", select.poll()
    poll.register(fd, select.POLLIN)
    end = time.monotonic() + seconds
    while poll.poll(1000 * (PAUSE if data else seconds)) and time.monotonic() < end:
        data += os.read(fd, 1 << 16)
    return data.decode(errors="replace") or NO_PYTHON


def kernel_stacks(worker: int) -> Iterator[str]:
    """Gives, for each thread of each process but this one, its name, its state, and its kernel stack."""
    count = 0
    for process, task in tasks():
        try:
            name, state, flags = stat(f"/proc/{process}/task/{task}")
            stack = read(f"/proc/{process}/task/{task}/stack")
        except OSError:  # the task has ended meanwhile
            continue
        if flags & PF_KTHREAD:
            continue
        count += 1
        if count > MOST_TASKS:
            yield "..."
            return
        whose = ", the worker" if process == worker else ""
        yield f"{name} (process {process}{whose}, thread {task}), {state}"
        yield from (f"    {line}" for line in stack.splitlines())


def tasks() -> Iterator[tuple[int, int]]:
    """Gives process and thread of each task but this process's."""
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:  # the process has ended meanwhile
            continue
        if process != os.getpid():
            yield from ((process, int(thread)) for thread in threads)


def stat(folder: str) -> tuple[str, str, int]:
    """Returns a task's name, state and flags: proc(5)."""
    start, _, rest = read(f"{folder}/stat").rpartition(")")
    fields = rest.split()
    names = {"R": "running", "S": "sleeping", "D": "uninterruptible", "Z": "ended", "T": "stopped"}
    return start.partition("(")[2], names.get(fields[0], fields[0]), int(fields[6])


def read(path: str) -> str:
    """Returns the content of a file of /proc."""
    with open(path, errors="replace") as file:
        return file.read()


def kernel_log() -> str:
    """Returns what the kernel says of blocked tasks (sysrq w), then of what its CPUs do (sysrq l)."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines = []
    try:
        os.lseek(log, 0, os.SEEK_END)
        for key in "wl":
            with open("/proc/sysrq-trigger", "w") as trigger:
                trigger.write(key)
        while True:
            try:
                record = os.read(log, 8192)
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            lines.append(record.decode(errors="replace").split("\n")[0].partition(";")[2])
    except BlockingIOError:
        return "\n".join(lines)
    except OSError as error:
        return "\n".join([*lines, str(error)])
    finally:
        os.close(log)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BaseException:
        sys.excepthook(*sys.exc_info())  # to the console; if process 1 exited, the kernel would panic
    libc.reboot(RB_AUTOBOOT)
