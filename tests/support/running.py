# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run modules and playbooks of this checkout, in an environment that neither sees nor touches the user's own."""

from __future__ import annotations

import functools
import json
import multiprocessing.context
import multiprocessing.forkserver
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t

import module_runner

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
COLLECTIONS = CACHE / "collections"
HOME = CACHE / "home"
RUNNER = pathlib.Path(__file__).with_name("module_runner.py")
MODULE_TIMEOUT = 300


# What a user's shell may have set for Ansible, PostgreSQL or XDG must not decide how a test ends.
FOREIGN_PREFIXES = ("ANSIBLE_", "PG", "XDG_", "MOLECULE_")


def private_environment() -> dict[str, str]:
    """Return the environment for every command of a test; tests/support/env.sh is the same for shells."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    environment.update(
        HOME=str(HOME),
        ANSIBLE_HOME=str(HOME / ".ansible"),
        # Ansible looks for ~ in the account's entry, not in HOME, when it runs modules on this machine.
        ANSIBLE_REMOTE_TMP=str(HOME / ".ansible" / "tmp"),
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_LOCALHOST_WARNING="0",
        LC_ALL="C.UTF-8",
        PATH=os.pathsep.join((os.path.dirname(sys.executable), environment.get("PATH", os.defpath))),
        PYTHONPATH=str(COLLECTIONS),
    )
    return environment


class ModuleResult(dict[str, t.Any]):
    """What a module returned; ``changed``, ``failed`` and ``msg`` are there whether the module set them or not."""

    @property
    def changed(self) -> bool:
        """Whether the module changed something, or would."""
        return bool(self.get("changed", False))

    @property
    def failed(self) -> bool:
        """Whether the module failed."""
        return bool(self.get("failed", False))

    @property
    def msg(self) -> str:
        """The module's message."""
        return str(self.get("msg", ""))


class ModuleError(AssertionError):
    """A module failed in a test that did not expect it."""


def run_module(
    module: str,
    /,
    *,
    check_mode: bool = False,
    diff_mode: bool = False,
    may_fail: bool = False,
    **params: t.Any,
) -> ModuleResult:
    """Run a module by its short name and return its result.

    A failure raises :class:`ModuleError` unless ``may_fail`` says that the test looks at it; a traceback always
    raises. ``check_mode`` and ``diff_mode`` are Ansible's ``--check`` and ``--diff``.
    """
    arguments = _arguments(params, check_mode, diff_mode)
    with tempfile.TemporaryDirectory(prefix="dbfleet-module-") as output:
        # A copy of a process that has its libraries: the tests run modules by the thousand.
        process = _forks().Process(
            target=module_runner.run_in_fork, args=(module, arguments, private_environment(), output)
        )
        process.start()
        process.join(MODULE_TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise ModuleError(f"{module} ran for more than {MODULE_TIMEOUT} s")
        texts = [pathlib.Path(output, name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return _result(module, process.exitcode, *texts, may_fail)


@functools.cache
def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(module_runner.PRELOAD))
    # It finds what it is to import by the environment that it starts in, and by nothing else.
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(COLLECTIONS), str(RUNNER.parent)))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
    return context


def start_module(
    module: str, /, *, check_mode: bool = False, diff_mode: bool = False, **params: t.Any
) -> subprocess.Popen[str]:
    """Start a module and return its process, for tests that do something to it while it works."""
    process = subprocess.Popen(
        [sys.executable, RUNNER, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=private_environment(),
        text=True,
    )
    assert process.stdin
    process.stdin.write(_arguments(params, check_mode, diff_mode))
    process.stdin.close()
    # communicate() would flush it once more.
    process.stdin = None
    return process


def finish_module(process: subprocess.Popen[str], may_fail: bool = True) -> ModuleResult:
    """Wait for a module that start_module() has started and return its result, as run_module() does."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=MODULE_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    module = " ".join(str(argument) for argument in process.args[2:])
    return _result(module, process.returncode, stdout, stderr, may_fail)


def _arguments(params: t.Mapping[str, t.Any], check_mode: bool, diff_mode: bool) -> str:
    internal = {
        "_ansible_check_mode": check_mode,
        "_ansible_diff": diff_mode,
        "_ansible_remote_tmp": tempfile.gettempdir(),
        "_ansible_keep_remote_files": False,
    }
    return json.dumps({**params, **internal})


def _result(module: str, status: int, stdout: str, stderr: str, may_fail: bool) -> ModuleResult:
    try:
        result = ModuleResult(json.loads(stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        raise ModuleError(f"{module} gave no result (rc {status}):\n{stdout}{stderr}") from None
    if result.failed and not may_fail:
        raise ModuleError(f"{module} failed: {result.msg}\n{result.get('exception') or stderr}")
    return result


class PlaybookResult(t.NamedTuple):
    """How a run of ansible-playbook ended."""

    rc: int
    stdout: str
    stderr: str

    def stats(self, host: str = "localhost") -> dict[str, int]:
        """Return a host's line of the recap as numbers: ok, changed, unreachable, failed, skipped, ..."""
        recap = self.stdout.rpartition("PLAY RECAP")[2]
        for line in recap.splitlines():
            name, separator, counts = line.partition(" : ")
            if separator and name.strip() == host:
                return {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        raise AssertionError(f"no recap of {host} (rc {self.rc}):\n{self.stdout}\n{self.stderr}")


def run_playbook(
    playbook: str | os.PathLike[str],
    inventory: str | os.PathLike[str] | t.Mapping[str, t.Any] | None = None,
    *arguments: str | os.PathLike[str],
    environment: t.Mapping[str, str] | None = None,
    check: bool = True,
    folder: str | os.PathLike[str] = ROOT,
) -> PlaybookResult:
    """Run ansible-playbook of this environment on a path or an FQCN such as ``dbfleet.audit.site``.

    ``inventory`` is a path, or the content of one as a dict. A playbook that fails raises unless ``check`` is off.
    ``folder`` is where it is run.
    """
    with tempfile.TemporaryDirectory(prefix="dbfleet-playbook-") as scratch:
        command: list[str] = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), os.fspath(playbook)]
        if inventory is not None and not isinstance(inventory, (str, os.PathLike)):
            path = pathlib.Path(scratch, "inventory.json")
            path.write_text(json.dumps(inventory), encoding="utf-8")
            inventory = path
        if inventory is not None:
            command += ["-i", os.fspath(inventory)]
        done = subprocess.run(
            [*command, *(os.fspath(argument) for argument in arguments)],
            env={**private_environment(), **(environment or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    if check and done.returncode:
        raise AssertionError(f"{playbook} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return PlaybookResult(done.returncode, done.stdout, done.stderr)
