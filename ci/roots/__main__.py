"""`ci/hosts`; see docs/hosts.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import jobs
import processes
import results
import root as roots
import suites

REPOSITORY = Path(__file__).resolve().parents[2]
CANNOT = 77
"""The exit status for a machine that can't make roots (automake's status for a skip)."""
KEPT = {*jobs.COMMANDS, "tests"}
"""The commands whose outcomes are kept for the table. Other commands are trials.

A run is a trial, too, in a root that was used before, or with files that are not committed.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/hosts",
        description="Runs ci/demo and ci/test in fresh roots of Debian's releases, and prints a table.",
        epilog=f"Exits with 1 when a command failed, {CANNOT} where roots can't be made. See docs/hosts.md.",
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"releases (default: {' '.join(suites.SUITES)}; also {' '.join(suites.UBUNTU)})",
    )
    parser.add_argument(
        "--job", action="append", default=[], choices=[*jobs.JOBS, "all"], metavar="NAME", help="run this job"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the jobs")
    parser.add_argument(
        "--command",
        action="append",
        default=[],
        metavar="NAME",
        help="run this instead of demo and test: gallery, or a shell command in the clone",
    )
    parser.add_argument("--other", action="store_true", help="a root of a release that does not run here")
    parser.add_argument("--reuse", action="store_true", help="use the root that the last such run left")
    parser.add_argument(
        "--worktree", action="store_true", help="copy the working tree instead of making a clone"
    )
    parser.add_argument("--keep", action="store_true", help="leave the roots")
    parser.add_argument("--share-kernels", action="store_true", help="use the kernels that this machine has")
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        metavar="JOB=FOLDER",
        dest="given",
        help="take what JOB tests from FOLDER",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="do not fail when a job's version can't be found"
    )
    parser.add_argument(
        "--timeout", type=float, default=90, metavar="MINUTES", help="limit of a command (default: 90)"
    )
    parser.add_argument("--table", action="store_true", help="write the table of all results into README.md")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the commands print")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.list:
        print("\n".join(jobs.JOBS))
        return 0
    stored = roots.cache() / "results.json"
    if options.table:
        results.write_between_marks(REPOSITORY / "README.md", results.table(results.load(stored).values()))
        return 0
    done = []
    try:
        roots.check_machine()
        for result in run_all(options):
            done.append(result)
            if result.outcomes.keys() <= KEPT and not (options.reuse or options.worktree):
                results.save(stored, result)
    except suites.CannotMakeRootsError as error:
        print(f"ci/hosts: cannot make roots: {error}", file=sys.stderr)
        return CANNOT
    print(results.table(done))
    return int(any(o.status for result in done for o in result.outcomes.values()))


def run_all(options: argparse.Namespace) -> Iterator[results.Result]:
    """Runs every root and job that was asked for, also after a failure."""
    names = list(jobs.JOBS) if "all" in options.job else options.job
    wanted = options.suites or ([suites.other_suite(suites.codename())] if options.other else [])
    for suite in wanted if wanted or names else suites.SUITES:
        try:
            yield run_suite(suite, options)
        except subprocess.CalledProcessError as error:
            yield failed(suite, error)
    for name in names:
        try:
            result = run_job(jobs.JOBS[name], options)
        except subprocess.CalledProcessError as error:
            result = failed(name, error)
        if result is not None:
            yield result


def run_suite(suite: str, options: argparse.Namespace) -> results.Result:
    """Runs the commands in a root of `suite`."""
    commands = {name: jobs.COMMANDS.get(name, name) for name in options.command or ("demo", "test")}
    with roots.opened(
        suite, suite, fresh=not options.reuse, keep=options.keep, verbose=options.verbose
    ) as root:
        return run_commands(suite, root, commands, options)


def run_job(job: jobs.Job, options: argparse.Namespace) -> results.Result | None:
    """Runs a job in a root of the first release that has its version, or with what this machine has of it."""
    commands = {name: jobs.COMMANDS.get(name, name) for name in options.command} or {"tests": job.command}
    given = dict(item.partition("=")[::2] for item in options.given)
    if folder := given.get(job.name):
        return run_job_from(job, Path(folder).resolve(), commands, options)
    for suite in job.suites:
        try:
            suites.archive(suite)
        except suites.CannotMakeRootsError as error:
            roots.say(f"{job.name}: {suite} can't be had: {error}")
            continue
        with opened_for(job, suite, options) as root:
            if jobs.install_from_release(job, root):
                return run_commands(job.name, root, commands, options)
            roots.say(f"{job.name}: {suite} has no package of it")
    if found := jobs.on_this_machine(job):
        return run_job_from(job, found, commands, options)
    if job.wheel:
        with opened_for(job, suites.own_or_stable(), options) as root:
            jobs.install_from_wheel(job, root)
            return run_commands(job.name, root, commands, options)
    why = jobs.missing(job)
    print(f"ci/hosts: {why}", file=sys.stderr)
    if options.skip_missing:
        return None
    return result_of(job.name, {}, {"preparation": results.Outcome(2, 0, {}, why)})


def run_job_from(
    job: jobs.Job, folder: Path, commands: dict[str, str], options: argparse.Namespace
) -> results.Result:
    """Runs a job with what is in `folder`, in a root of the release here, because it was built for that."""
    roots.say(f"{job.name}: from {folder}")
    with opened_for(job, suites.own_or_stable(), options) as root:
        jobs.install_from_folder(job, root, folder)
        return run_commands(job.name, root, commands, options)


@contextlib.contextmanager
def opened_for(job: jobs.Job, suite: str, options: argparse.Namespace) -> Iterator[roots.Root]:
    """Makes a fresh root of `suite`, in which commands can run before there is a clone."""
    with roots.opened(suite, job.name, fresh=True, keep=options.keep, verbose=options.verbose) as root:
        (root.path / roots.SOURCE.lstrip("/")).mkdir(parents=True, exist_ok=True)
        yield root


def run_commands(
    name: str, root: roots.Root, commands: dict[str, str], options: argparse.Namespace
) -> results.Result:
    """Runs `commands` one after the other in a clone in the root."""
    commit = checked_out()
    roots.clone(root, worktree=options.worktree)
    if options.share_kernels:
        root.binds.append(f"{roots.cache().parent / 'kernels'}:/root/.cache/pytest-bpfmaps/kernels")
    outcomes = {}
    for short, command in commands.items():
        start = time.monotonic()
        status, log = root.run(short if short in KEPT else "command", command, 60 * options.timeout)
        seconds = time.monotonic() - start
        text = log.read_text(errors="replace")
        outcomes[short] = results.outcome(status, seconds, text)
        said = "passed" if status == 0 else "timed out" if status == 124 else "failed"
        roots.say(f"{name}: {short} {said} in {seconds:.0f} s; output: {log}")
        if status and not options.verbose:
            print("\n".join(text.splitlines()[-200:]))
    return result_of(name, results.versions(root), outcomes, commit)


def failed(name: str, error: subprocess.CalledProcessError) -> results.Result:
    """Returns the result for a root that could not be made, or that could not get what a job tests."""
    output = str(error.output)
    print(f"ci/hosts: {error.cmd} failed (status {error.returncode}):\n{output}", file=sys.stderr)
    outcome = results.outcome(error.returncode, 0, output)
    outcome.stage = "; ".join(filter(None, (str(error.cmd), outcome.stage)))
    return result_of(name, {}, {"preparation": outcome})


def result_of(
    name: str, versions: dict[str, str], outcomes: dict[str, results.Outcome], commit: str = ""
) -> results.Result:
    """Returns a result of today, for `commit` or for what is checked out now."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return results.Result(name, today, commit or checked_out(), versions, outcomes)


def checked_out() -> str:
    """Returns the commit that is checked out."""
    ask = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(processes.guarded(lambda: main(sys.argv[1:])))
