# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a playbook on the controller by schedule: keeps its output, lets no two runs overlap, tells when one has failed.

It exits with the status of the playbook, whatever becomes of the alert, and with 124 when the run took too long. It
prints nothing when all is well. Secrets come by the environment: DBFLEET_AUDIT_WEBHOOK_URL (for URLs that are secret
themselves), DBFLEET_AUDIT_WEBHOOK_TOKEN, DBFLEET_AUDIT_SMTP_PASSWORD; the playbook does not get them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import email.message
import fcntl
import getpass
import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO

TIMED_OUT = 124
NOT_STARTED = 127

#: Bytes of output that are kept in one file; the one before it is kept too.
LOG_BYTES = 10_000_000

#: What an alert holds of the output: its last lines, the lines that name a failure, characters of each.
LAST_LINES = 30
PROBLEM_LINES = 50
LINE_LENGTH = 500

ALERT_SECONDS = 30
ATTEMPTS = 3

_RECAP = re.compile(r"(\S+)\s+: ok=\d+ .*\bunreachable=(\d+)\s+failed=(\d+)")
_PROBLEM = re.compile(r"(FAILED |fatal: |\[ERROR\]|ERROR! )")
_SECRETS = ("DBFLEET_AUDIT_WEBHOOK_URL", "DBFLEET_AUDIT_WEBHOOK_TOKEN", "DBFLEET_AUDIT_SMTP_PASSWORD")


class Output:
    """What is remembered of a run's output."""

    def __init__(self) -> None:
        self.last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self.problems: list[str] = []
        self.hosts: list[str] = []

    def add(self, line: str) -> None:
        """Look at a line."""
        text = line.rstrip()[:LINE_LENGTH]
        if not text:
            return
        self.last.append(text)
        # A list that debug prints has its lines in quotes.
        plain = text.strip().lstrip('"')
        if _PROBLEM.match(plain) and len(self.problems) < PROBLEM_LINES:
            self.problems.append(plain)
        recap = _RECAP.match(text)
        if recap and (recap[2] != "0" or recap[3] != "0"):
            self.hosts.append(recap[1])


def run(command: list[str], log: str, hours: float, output: Output) -> int:
    """Run a command, its output into a file; return its status."""
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    with open(log, "a", encoding="utf-8", errors="replace") as file:
        file.write(f"--- {_now()} {' '.join(command)}\n")
        file.flush()
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            output.add(f"ERROR! {command[0]} cannot be run: {error.strerror}")
            return NOT_STARTED
        status = _follow(process, hours, output, file)
        file.write(f"--- {_now()} exit status {status}\n")
    return status


def _follow(process: subprocess.Popen[str], hours: float, output: Output, file: IO[str]) -> int:
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(hours * 3600, end)
    timer.start()
    try:
        for line in process.stdout:
            print(line, end="", file=file, flush=True)
            output.add(line)
        status = process.wait()
    finally:
        timer.cancel()
    if late.is_set():
        output.add(f"ERROR! ended, because it had not come to an end after {hours:g} hours")
        return TIMED_OUT
    return status


def alert(options: argparse.Namespace, status: int, started: str, output: Output) -> list[str]:
    """Tell of a run that has failed, by all the ways that there are; return what went wrong with that."""
    hosts = ", ".join(sorted(set(output.hosts))) or "no host named"
    subject = f"dbfleet.audit: {options.job} failed on {socket.gethostname()} with status {status} ({hosts})"
    facts = {
        "job": options.job,
        "controller": socket.gethostname(),
        "status": status,
        "hosts": sorted(set(output.hosts)),
        "problems": output.problems,
        "lines": list(output.last),
        "log": options.log,
        "started": started,
        "ended": _now(),
    }
    body = "\n".join([subject, "", *output.problems, "", f"The end of {options.log}:", *output.last])
    url = os.environ.get("DBFLEET_AUDIT_WEBHOOK_URL") or options.webhook
    failures = []
    if url:
        failures += _sent("webhook", lambda: _post(url, {"text": "\n".join([subject, *output.problems[:10]]), **facts}))
    if options.mail_to:
        failures += _sent("mail", lambda: _mail(options, subject, body))
    return failures


def _sent(way: str, send: Callable[[], None], attempts: int = ATTEMPTS) -> list[str]:
    try:
        send()
    except (OSError, ValueError, smtplib.SMTPException, subprocess.SubprocessError) as error:
        if attempts == 1:
            return [f"the alert by {way} was not sent: {_reason(error)}"]
        time.sleep(ATTEMPTS - attempts + 1)
        return _sent(way, send, attempts - 1)
    return []


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST arrives as a GET without its body: an alert lost with a good status."""

    def redirect_request(self, *_arguments: object) -> None:
        """Follow none."""


def _post(url: str, facts: dict[str, object]) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("its URL begins with neither http:// nor https://")
    headers = {"Content-Type": "application/json"}
    token = os.environ.get("DBFLEET_AUDIT_WEBHOOK_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(facts).encode(), headers, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=ALERT_SECONDS):
        pass


def _mail(options: argparse.Namespace, subject: str, body: str) -> None:
    message = email.message.EmailMessage()
    message["Subject"] = subject.replace("\n", " ")
    message["From"] = options.mail_from or f"{getpass.getuser()}@{socket.getfqdn()}"
    message["To"] = ", ".join(options.mail_to)
    message.set_content(body)
    if not options.smtp:
        subprocess.run([options.sendmail, "-t", "-i"], input=bytes(message), check=True, timeout=ALERT_SECONDS)
        return
    host, _colon, port = options.smtp.partition(":")
    with smtplib.SMTP(host, int(port or 25), timeout=ALERT_SECONDS) as server:
        if options.smtp_starttls:
            server.starttls()
        if options.smtp_user:
            server.login(options.smtp_user, os.environ.get("DBFLEET_AUDIT_SMTP_PASSWORD", ""))
        server.send_message(message)


def _reason(error: Exception) -> str:
    # Never the URL, which may be a secret.
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    return str(getattr(error, "reason", None) or error)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def alone(path: str) -> Iterator[bool]:
    """Give whether no other run of the job is going on; keep the next one out."""
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def arguments() -> argparse.Namespace:
    """Return what was asked."""
    parser = argparse.ArgumentParser(description="Run a playbook by schedule, and tell when it has failed.")
    parser.add_argument("--job", required=True, help="what the run is called in alerts")
    parser.add_argument("--log", required=True, help="file that the output is added to")
    parser.add_argument("--hours", type=float, default=12, help="after which a run is ended and has failed")
    parser.add_argument("--webhook", default="", help="URL that gets a failure as JSON")
    parser.add_argument("--mail-to", action="append", default=[], help="who gets a failure by mail")
    parser.add_argument("--mail-from", default="")
    parser.add_argument("--sendmail", default="/usr/sbin/sendmail", help="command that takes a mail")
    parser.add_argument("--smtp", default="", help="HOST:PORT that takes it instead")
    parser.add_argument("--smtp-starttls", action="store_true")
    parser.add_argument("--smtp-user", default="")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def main() -> int:
    """Run, and tell."""
    options = arguments()
    output, started = Output(), _now()
    try:
        status = _run_alone(options, output, started)
    except OSError as error:
        # A full disk, for one: that is a failure like any other.
        output.add(f"ERROR! {error}")
        status = NOT_STARTED
    if status == 0:
        return 0
    failures = alert(options, status, started, output)
    said = [*output.problems, *output.last, f"{options.job} failed with status {status}; see {options.log}", *failures]
    print("\n".join(said), file=sys.stderr)
    # A process that a signal has ended has a negative status.
    return status if 0 < status < 256 else 1


def _run_alone(options: argparse.Namespace, output: Output, started: str) -> int:
    with alone(f"{options.log}.lock") as first:
        if not first:
            with open(options.log, "a", encoding="utf-8") as file:
                file.write(f"--- {started} left out, because the run before it is still going on\n")
            return 0
        if os.path.exists(options.log) and os.path.getsize(options.log) > LOG_BYTES:
            os.replace(options.log, f"{options.log}.1")
        return run(options.command, options.log, options.hours, output)


if __name__ == "__main__":
    sys.exit(main())
