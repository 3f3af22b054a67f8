# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing and verifying as tasks of a playbook; and what of it reaches the host: nothing of the key."""

from __future__ import annotations

import base64
import contextlib
import glob
import io
import json
import os
import pathlib
import re
import sys
import threading
import typing as t
import zipfile

import pytest
import running
from auditing import install_trail, rollout, wanted
from cryptography.hazmat.primitives import serialization
from databases import Database
from running import run_playbook
from sealing import KeyPair, make_key

from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger

PASSPHRASE = "correct horse battery staple"
SEAL, VERIFY = "dbfleet.audit.postgresql_audit_seal", "dbfleet.audit.postgresql_audit_verify"


class Play:
    """A play with tasks of the two modules against one database."""

    def __init__(self, log: Database, directory: pathlib.Path, **host: t.Any) -> None:
        self.log = log
        self.key = make_key(directory)
        self.ledger = directory / "ledger.jsonl"
        self.playbook = directory / "play.json"
        self.options: dict[str, t.Any] = {}
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **host}
        self.inventory = {"all": {"hosts": {"pg1": variables}}}

    def run(
        self, *tasks: dict[str, t.Any], arguments: t.Sequence[str] = (), **options: t.Any
    ) -> running.PlaybookResult:
        """Run tasks; the connection comes from module_defaults."""
        defaults = {"group/dbfleet.audit.postgresql": self.log.login}
        play = {"hosts": "all", "gather_facts": False, "module_defaults": defaults, "tasks": tasks, **self.options}
        # A playbook is YAML, and JSON is YAML.
        self.playbook.write_text(json.dumps([play]))
        return run_playbook(self.playbook, self.inventory, *arguments, **options)

    def seal(self, name: str = SEAL, **options: t.Any) -> dict[str, t.Any]:
        """Return a task that seals."""
        return {name: {"signing_key": self.key.private, "ledger": str(self.ledger), **options}, "register": "sealed"}

    def verify(self, name: str = VERIFY, **options: t.Any) -> dict[str, t.Any]:
        """Return a task that verifies."""
        arguments = {"public_key": [self.key.public], "ledger": str(self.ledger), "policies": [wanted("public.item")]}
        return {name: {**arguments, **options}, "register": "verified"}

    def numbers(self) -> list[int]:
        """Return the numbers of the ledger's seals."""
        return [entry.seal.number for entry in Ledger(str(self.ledger)).entries()[0]]


def shown(expression: str) -> dict[str, t.Any]:
    """Return a task that prints a value as `shown=...`."""
    return {"debug": {"msg": f"shown={{{{ ({expression}) | to_json }}}}"}}


def values(result: running.PlaybookResult) -> list[t.Any]:
    """Return what the tasks of :func:`shown` have printed."""
    found = re.findall(r'"msg": "shown=(.*)"$', result.stdout, re.MULTILINE)
    return [json.loads(text.replace('\\"', '"')) for text in found]


@pytest.fixture
def log(trail: Database) -> Database:
    """Return a database with one audited table and a few changes."""
    trail.execute("CREATE TABLE item (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.item")])
    trail.execute("INSERT INTO item SELECT generate_series(1, 10)")
    return trail


@pytest.fixture
def play(log: Database, tmp_path: pathlib.Path) -> Play:
    return Play(log, tmp_path)


def test_a_second_run_changes_nothing_and_both_verify(log: Database, play: Play) -> None:
    tasks = (play.seal(), play.verify(), shown("[sealed.rows, verified.rows_checked, verified.valid]"))
    first = play.run(*tasks)
    rows = log.value("SELECT count(*) FROM audit.audit_log_data")
    assert first.stats("pg1")["changed"] == 1
    assert values(first) == [[rows, rows, True]]
    second = play.run(*tasks)
    assert second.stats("pg1")["changed"] == 0
    assert values(second) == [[0, rows, True]]


@pytest.mark.parametrize(
    ("seal", "verify", "keywords"),
    [
        (SEAL, VERIFY, {}),
        ("postgresql_audit_seal", "postgresql_audit_verify", {"collections": ["dbfleet.audit"]}),
    ],
    ids=["full names", "short names"],
)
@pytest.mark.thorough
def test_it_is_found_by_either_name(play: Play, seal: str, verify: str, keywords: dict[str, t.Any]) -> None:
    play.options = keywords
    assert play.run(play.seal(seal), play.verify(verify)).stats("pg1")["changed"] == 1
    assert play.numbers() == [1, 2]


def test_check_mode_tells_how_much_and_writes_nothing(log: Database, play: Play) -> None:
    ids = log.value("SELECT last_value FROM audit.audit_log_id_seq")
    predicted = play.run(play.seal(), shown("[sealed.changed, sealed.unsealed]"), arguments=["--check"])
    assert values(predicted) == [[True, ids]]
    assert not play.ledger.exists()
    assert log.value("SELECT count(*) FROM audit.seal") == 0
    play.run(play.seal())
    before = play.ledger.read_bytes()
    again = play.run(play.seal(), shown("[sealed.changed, sealed.unsealed]"), play.verify(), arguments=["--check"])
    assert values(again) == [[False, 0]]
    assert play.ledger.read_bytes() == before


def test_async_is_refused(log: Database, play: Play) -> None:
    result = play.run({**play.seal(), "async": 60, "poll": 1}, check=False)
    assert result.stats("pg1")["failed"] == 1
    assert "async" in result.stdout
    assert log.value("SELECT count(*) FROM audit.seal") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"leger": "x"}, f"Unsupported parameters for ({SEAL}) module: leger. Supported parameters include:"),
        ({"block_rows": "many"}, "'block_rows' is of type"),
        ({"login_port": "many"}, "'login_port' is of type"),
        ({"call_seconds": -1}, "call_seconds is -1.0, and has to be a number above 0"),
        ({"signing_key": "/nonexistent/key.pem"}, "/nonexistent/key.pem on the controller cannot be read"),
        ({"signing_key": ""}, "signing_key or signing_key_content is missing"),
        ({"login_db": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_option_is_one_error(log: Database, play: Play, options: dict[str, t.Any], expected: str) -> None:
    result = play.run(play.seal(**options), check=False)
    errors = re.findall(r"^fatal: .*", result.stdout, re.MULTILINE)
    assert len(errors) == 1
    assert expected in errors[0].replace("\\u0027", "'")
    assert "Traceback" not in result.stdout
    assert log.value("SELECT count(*) FROM audit.seal") == 0


def test_a_misspelt_option_of_verify_is_one_error(play: Play) -> None:
    result = play.run(play.verify(publickey="x"), check=False)
    assert result.stdout.count("fatal: ") == 1
    assert f"Unsupported parameters for ({VERIFY}) module: publickey." in result.stdout


def test_problems_fail_the_task_unless_told_otherwise(log: Database, play: Play) -> None:
    play.run(play.seal())
    log.execute("SET session_replication_role = replica")
    log.execute("ALTER TABLE audit.audit_log_data DISABLE TRIGGER USER")
    tables = log.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit.audit_log_data'::regclass"
    )
    for (table,) in tables:
        log.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    log.execute("UPDATE audit.audit_log_data SET changed_by = 'eve' WHERE record_id = '3'")
    row = log.value("SELECT id FROM audit.audit_log_data WHERE record_id = '3'")
    failed = play.run(play.verify(), check=False)
    assert failed.rc != 0
    assert f"row {row} is not what was sealed" in failed.stdout
    told = play.run(play.verify(fail_on_problem="no"), shown("[verified.valid, verified.first_tampered_id]"))
    assert values(told) == [[False, row]]


INTERPRETER = """#!/bin/sh
# Keeps all that the host gets before the next call overwrites it.
keep=$(mktemp -d {kept}/call.XXXXXX)
printf '%s\\n' "$0" "$@" > "$keep/command"
for file in "$@"; do [ -f "$file" ] && cp "$file" "$keep"; done
exec {python} "$@"
"""


@contextlib.contextmanager
def command_lines() -> t.Iterator[set[bytes]]:
    """Collect all command lines of this machine while a `with` lasts."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.05):
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(pathlib.Path(path).read_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def unpacked(data: bytes) -> bytes:
    """Return data and what is packed in it: zip files, and base64 in which Ansible sends them."""
    found = [data]
    for text in re.findall(rb"[A-Za-z0-9+/\n\\]{200,}={0,2}", data):
        try:
            decoded = base64.b64decode(re.sub(rb"\\n|\n|\\", b"", text), validate=True)
        except ValueError:
            continue
        found.append(decoded)
        if zipfile.is_zipfile(io.BytesIO(decoded)):
            with zipfile.ZipFile(io.BytesIO(decoded)) as archive:
                found += [archive.read(name) for name in archive.namelist()]
    return b"\n".join(found)


def secrets(key: KeyPair) -> dict[str, bytes]:
    """Return what nobody but the controller may have, by what it is."""
    pem = pathlib.Path(key.private).read_bytes()
    raw = serialization.load_pem_private_key(pem, PASSPHRASE.encode()).private_bytes_raw()
    lines = pem.decode().strip().splitlines()
    plain = serialization.load_pem_private_key(pem, PASSPHRASE.encode()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found = {f"line {number} of the PEM file": line.encode() for number, line in enumerate(lines[1:-1])}
    return {
        **found,
        "the PEM file": pem.strip(),
        "the PEM file's kind": b"PRIVATE KEY-----\\n",
        "the seed": raw,
        "the seed in hex": raw.hex().encode(),
        "the seed in capital hex": raw.hex().upper().encode(),
        "the seed in base64": base64.b64encode(raw).rstrip(b"="),
        "the key in base64": base64.b64encode(plain)[-40:].rstrip(b"="),
        "the passphrase": PASSPHRASE.encode(),
        "the passphrase in base64": base64.b64encode(PASSPHRASE.encode()).rstrip(b"="),
        "the key's path": key.private.encode(),
        "the ledger's path": str(pathlib.Path(key.private).with_name("ledger.jsonl")).encode(),
    }


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with an interpreter that keeps there what it is called with."""
    directory = tmp_path / "kept"
    directory.mkdir()
    interpreter = directory / "python"
    interpreter.write_text(INTERPRETER.format(kept=directory, python=sys.executable))
    interpreter.chmod(0o755)
    return directory


@pytest.mark.parametrize("way", ["path", "content"])
@pytest.mark.thorough
def test_nothing_of_the_key_leaves_the_controller(
    new_server: t.Any, new_database: t.Any, tmp_path: pathlib.Path, kept: pathlib.Path, way: str
) -> None:
    server = new_server(log_statement="all", log_min_messages="debug1")
    log = new_database(server)
    install_trail(log)
    log.execute("CREATE TABLE item (id int PRIMARY KEY)")
    rollout(log, policies=[wanted("public.item")])
    remote = tmp_path / "remote"
    play = Play(log, tmp_path, ansible_python_interpreter=str(kept / "python"), ansible_remote_tmp=str(remote))
    play.key = make_key(tmp_path, "secret", PASSPHRASE)
    content = pathlib.Path(play.key.private).read_text()
    host = play.inventory["all"]["hosts"]["pg1"]
    host.update(the_key=content, the_passphrase=PASSPHRASE)
    key: dict[str, t.Any] = {"signing_key_passphrase": "{{ the_passphrase }}"}
    key |= {"signing_key": None, "signing_key_content": "{{ the_key }}"} if way == "content" else {}
    tasks = (play.seal(**key), play.verify(), play.seal(**{**key, "resync": "a test of secrecy"}))
    environment = {"ANSIBLE_KEEP_REMOTE_FILES": "1"}
    outputs = []
    with command_lines() as commands:
        for chosen, arguments in ((tasks, ["-vvvv"]), (tasks[:1], ["-vvvv", "--check", "--diff"])):
            outputs.append(play.run(*chosen, arguments=arguments, environment=environment))
        wrong = play.seal(**{**key, "ledger": f"{kept}/python/x.jsonl"})
        outputs.append(play.run(wrong, arguments=["-vvvv"], environment=environment, check=False))
    assert outputs[-1].rc != 0
    places = {
        "the host's files": [path.read_bytes() for top in (remote, kept) for path in top.rglob("*") if path.is_file()],
        "command lines": list(commands),
        "the server's log": [pathlib.Path(server.log).read_bytes()],
        "the output": [(output.stdout + output.stderr).encode() for output in outputs],
        "the database": [
            repr(log.execute(f"SELECT x::text FROM audit.{name} AS x")).encode()
            for name in ("seal", "seal_state", "seal_inventory", "audit_log_data")
        ],
    }
    unpacked_places = {name: b"\n".join(unpacked(data) for data in texts) for name, texts in places.items()}
    found = [
        (what, place)
        for place, text in unpacked_places.items()
        for what, secret in secrets(play.key).items()
        if secret in text
    ]
    assert found == []
    # It would have been found: what each place is known to have is.
    assert unpacked_places["the host's files"].count(b'"do": "seal"') >= 4
    assert b"class SealStore" in unpacked_places["the host's files"]
    assert b"AnsiballZ_postgresql_audit_seal.py" in unpacked_places["command lines"]
    assert b"seal_state SET watermark" in unpacked_places["the server's log"]
    assert b"a test of secrecy" in unpacked_places["the database"]
    assert os.listdir(remote)
