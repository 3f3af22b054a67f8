# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What shipping works out without a server: messages of syslog, cursors, what to ask for, when to try again."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import hashlib
import http.client
import json
import pathlib
import socket
import threading
import time
import typing as t

import pytest
from collectors import SyslogCollector

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import GENESIS, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ship_step import COLLECTOR_SPEC, GAP, WINDOW, windows
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import Message, message, parse
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped_check import ShippedCheck
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_cursor import Cursor
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import Files, fingerprint, slug, split_url
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_http import Http, _read, _retry_after, batches
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_syslog import Syslog, framed, rfc5424
from ansible_collections.dbfleet.audit.plugins.plugin_utils._trail_shipping import ship_lines, ship_logs, ship_problems

SEAL = Seal("4711", 12, "rows", "2026-11-20", ((7, 9),), 3, "00", {}, "2026-11-20T19:03:07.123456Z", GENESIS, "k")
LINE = '{"id":7,"changed_at":"2026-11-20T19:03:07.5","action":"INSERT","table_name":"é\u2028😀"}'.encode()
ORIGIN = {"server": "pg 3", "database": 'a"b]c\\d'}


def test_a_row_is_shipped_in_ascii_and_comes_back_as_the_same_bytes():
    for line in (LINE, b'{"id":7,"table_name":"\xff\xfe"}'):
        made = message(7, line, SEAL, ORIGIN)
        assert made.text.isascii()
        assert "\n" not in made.text
        shipped = parse(made.text.encode())
        assert shipped
        assert (shipped.row, shipped.seal, shipped.chain) == (line, 12, "4711")
        # What a collector has parsed and written anew.
        again = json.dumps({"_source": json.loads(made.text)}, indent=1, ensure_ascii=not line.isascii())
        assert parse(again.replace("\n", " ").encode(errors="surrogateescape")) == shipped


def test_what_is_searched_for_is_beside_a_row_whatever_its_documents_are():
    searched = {"changed_at": "T", "action": "INSERT", "table_name": 't,"context":1', "record_id": "1"}
    start = json.dumps({"id": 7, **searched}, separators=(",", ":"))[:-1].encode()
    for documents in (
        b',"changed_columns":["a"],"context":{"x":[11e]}}',
        b',"hidden_changes":["a"]}',
        b',"context_text":"{\\"changed_at\\": 1}","new_values":{"changed_at":"x"}}',
        b',"old_values":' + b"[" * 100000 + b"]" * 100000 + b"}",
        b',"new_values":{"a":"\\q"}}',
        b"}",
    ):
        made = message(7, start + documents, SEAL, ORIGIN)
        fields = json.loads(made.text)
        assert {name: fields.get(name) for name in searched} == searched
        assert (fields["row"].encode(), made.changed_at, made.action) == (start + documents, "T", "INSERT")


def test_a_message_of_syslog_is_as_rfc_5424_and_its_frame_as_rfc_5425_say():
    text = message(7, LINE, SEAL, ORIGIN)
    sent = rfc5424(text, SEAL, ORIGIN)
    header, _open, rest = sent.decode().partition(" [")
    assert header == "<110>1 2026-11-20T19:03:07.5Z pg_3 dbfleet.audit - INSERT"
    assert rest == f'dbfleet@32473 chain="4711" database="a\\"b\\]c\\\\d" seal="12" id="7"] {text.text}'
    assert framed(sent) == str(len(sent)).encode() + b" " + sent
    unparsed = message(7, b'{"id":7,', SEAL, ORIGIN)
    assert rfc5424(unparsed, SEAL, ORIGIN).startswith(b"<110>1 - pg_3 dbfleet.audit - - [")


@contextlib.contextmanager
def listening(handle: t.Callable[[socket.socket], object]) -> t.Iterator[str]:
    """Handle connections one after the other; give the URL for syslog without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    handle(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"syslog+tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def deliver(url: str, pause: float = 0, timeout: float = 20, **collector: t.Any) -> None:
    """Send one message by syslog, and try for as many seconds."""

    def messages() -> t.Iterator[Message]:
        time.sleep(pause)
        yield message(7, LINE, SEAL, ORIGIN)

    Syslog(url, ORIGIN, {**dict.fromkeys(COLLECTOR_SPEC), **collector}, timeout).deliver(SEAL, messages)


def test_what_no_collector_of_syslog_has_read_is_not_acknowledged(tmp_path: pathlib.Path):
    with contextlib.closing(SyslogCollector(tmp_path, asks=True)) as collector:
        trusted = {"ca_cert": str(collector.certificate)}
        # With TLS 1.3, a client learns that it is refused once it has sent everything; how, is up to chance.
        with pytest.raises(AuditError, match="does not take what is shipped"):
            deliver(collector.url, timeout=2, **trusted)
        key = str(collector.certificate.with_suffix(".key"))
        deliver(collector.url, **trusted, client_cert=trusted["ca_cert"], client_key=key)
        assert len(collector.messages) == 1
    kept: list[socket.socket] = []

    def end_first(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        kept.append(connection)

    # Its system takes the bytes, and nobody will read them.
    with listening(end_first) as url, pytest.raises(AuditError, match="it ended the connection before all was sent"):
        deliver(url, pause=0.5, timeout=2)
    with listening(lambda connection: (connection.makefile("rb").read(), connection.close())) as url:
        deliver(url)


def answered(text: bytes) -> http.client.HTTPResponse:
    """Return an answer of HTTP that ends, or breaks off, behind a text."""
    here, there = socket.socketpair()
    with there:
        there.sendall(text)
    with here:
        response = http.client.HTTPResponse(here)
    response.begin()
    return response


def test_an_answer_without_an_end_is_not_read_to_it_and_one_that_breaks_off_counts_for_nothing():
    _read(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"), time.monotonic() + 5)
    with pytest.raises(http.client.IncompleteRead):
        _read(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"), time.monotonic() + 5)
    endless = answered(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000))
    _read(endless, time.monotonic() + 5)
    assert len(endless.read()) == 100_000 - 65_536


def test_what_is_asked_for_is_cut_into_windows_and_leaves_gaps_out():
    assert list(windows([(1, 5), (7, 9)], 0)) == [(0, 9)]
    far = 9 + GAP + 2
    assert list(windows([(1, 9), (far, far)], 3)) == [(3, 9), (far - 1, far)]
    assert list(windows([(1, 2 * WINDOW + 1)], 0)) == [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 2 * WINDOW + 1)]
    assert list(windows([(1, 9)], 9)) == []


def test_batches_hold_what_fits_and_one_that_does_not():
    messages = [message(number, LINE, SEAL, ORIGIN) for number in range(5)]
    size = len(messages[0].text) + 1
    assert [len(batch) for batch in batches(messages, 2 * size)] == [2, 2, 1]
    assert [len(batch) for batch in batches(messages, 1)] == [1] * 5


def test_a_collector_says_when_to_try_again():
    assert _retry_after("7") == 7
    soon = _retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert soon is not None
    assert 50 < soon <= 60
    assert _retry_after(None) is _retry_after("soon") is None


def entries(number: int) -> list[Entry]:
    return [Entry(dataclasses.replace(SEAL, number=one), "") for one in range(1, number + 1)]


def test_a_cursor_that_is_not_of_this_ledger_is_refused_with_a_remedy(tmp_path: pathlib.Path):
    cursor = Cursor(str(tmp_path / "made" / "shop.cursor"))
    with cursor.locked():
        assert cursor.read() is None
        cursor.write("siem", entries(3)[2].seal)
        with pytest.raises(AuditError, match="another run ships by the cursor"), cursor.locked():
            pass
    position = cursor.read()
    assert position
    position.check(entries(3), cursor.path)
    position.check(entries(5), cursor.path)
    other = [Entry(dataclasses.replace(one.seal, chain="another"), "") for one in entries(5)]
    anew = [Entry(dataclasses.replace(one.seal, root="11"), "") for one in entries(5)]
    for ledger, said in [
        (entries(2), "seal 3 was shipped, and the ledger ends with 2: its end was cut off"),
        ([], "the ledger ends with none"),
        (other, "is of another log"),
        (anew, "seal 3 of the ledger is not the one that was shipped"),
    ]:
        with pytest.raises(AuditError, match=said):
            position.check(ledger, cursor.path)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["shop.cursor", "shop.cursor.lock"]
    (tmp_path / "made" / "shop.cursor").write_text("half")
    with pytest.raises(AuditError, match=r"cannot be read .* delete it, and say with from_seal where to begin"):
        cursor.read()


def test_names_of_destinations_hold_nothing_secret_and_are_their_own(tmp_path: pathlib.Path):
    collector = {**dict.fromkeys(COLLECTOR_SPEC), "headers": {}}
    endpoint = Http("https://siem.example.com:8088/ingest/path-token?key=query-token", collector, 1)
    assert endpoint.title == "https://siem.example.com:8088"
    assert endpoint.name.startswith("https_siem.example.com_8088-")
    assert "token" not in endpoint.title + endpoint.name
    assert endpoint.name != Http("https://siem.example.com:8088/other", collector, 1).name
    said = endpoint._text("Cannot POST /ingest/path-token?key=query-token\n(ingest, path-token, query-token)")
    assert said == "Cannot POST ***?*** (***, ***, ***)"
    assert len(fingerprint("x")) == 8
    assert slug("/mnt/shipped") == "mnt_shipped"
    # As parts of a name they are the same.
    places = [tmp_path / "a_b", tmp_path / "a" / "b"]
    for place in places:
        place.mkdir(parents=True)
    assert len({Files(str(place), (), ({}, {}), None, list).name for place in places}) == 2
    with pytest.raises(AuditError) as caught:
        split_url("https://eve:word@siem.example.com/", ("https",))
    assert "belong into `collector`" in str(caught.value)
    assert "word" not in str(caught.value)


def test_the_role_says_what_is_missing_and_what_was_shipped():
    given = {"url": "", "keep": "7x", "seal": False, "public_keys": [], "ledger": "s3://b/ledger", "cursors": ""}
    problems = ship_problems(given)
    for name in (
        "_shipping_trail_url is missing",
        "_seal_public_keys is missing",
        "_trail_cursors is missing",
        "_keep is",
    ):
        assert [problem for problem in problems if name in problem], name
    good = {**given, "url": "/mnt", "keep": "", "seal": True, "ledger": "/srv/ledger"}
    assert ship_problems(good) == []
    (log,) = ship_logs([{"name": "shop", "schema": "audit"}], "/srv/ledger", "pg3", "/srv/cursor")
    assert (log["ledger"], log["cursor"]) == ("/srv/ledger/pg3/shop.jsonl", "/srv/cursor/pg3/shop.cursor")
    result = {
        "rows": 1204,
        "seals": 3,
        "destination": "https://siem",
        "behind": 0,
        "behind_since": None,
        "seconds": 0.84,
    }
    assert ship_lines([result], ["shop"], "pg3") == [
        "pg3 shop: 1,204 rows of 3 seals shipped to https://siem, nothing behind, 0.8 s"
    ]
    behind = {**result, "behind": 1, "behind_since": "2026-11-20", "failed": True, "msg": "down"}
    assert ship_lines([behind], [""], "db1") == [
        "FAILED db1: down",
        "db1: 1,204 rows of 3 seals shipped to https://siem, 1 seal behind, since 2026-11-20, 0.8 s",
    ]
    unknown = {**result, "behind": None, "failed": True, "msg": "the cursor is of another log"}
    assert ship_lines([unknown], [""], "db1")[1].endswith(
        " shipped to https://siem, how far behind is not known, 0.8 s"
    )


def test_rows_of_seals_that_were_lost_or_accepted_are_no_less_compared():
    lines = [b'{"id":%d,"changed_at":"2026-11-20T19:03:07"}' % number for number in (7, 8, 9)]
    leaves = b"".join(hashlib.sha256(line).digest() for line in lines)
    seal = dataclasses.replace(SEAL, root=hashlib.sha256(leaves).hexdigest())
    other = dataclasses.replace(seal, number=15)

    def compared(said: dict[str, t.Any], *rows: bytes) -> tuple[list[tuple[str, int | None]], ShippedCheck]:
        """Compare rows with a ledger in which a resync has said something."""
        resync = dataclasses.replace(SEAL, number=13, kind="resync", attested={"accepted": [], **said})
        check = ShippedCheck([seal, resync, other], [Entry(one, "") for one in (seal, resync, other)])
        check.take([message(7, row, seal, ORIGIN).text.encode() for row in rows], "export")
        check.finish(None, None)
        return [(problem.type, problem.id) for problem in check.problems], check

    lost = {"seals": [[12, 12]]}
    changed = lines[1].replace(b"2026", b"2025")
    found, check = compared(lost, *lines)
    assert (found, check.whole, check.absent) == ([], [12], [15])
    # The run that shipped it was killed, and then it was gone.
    assert compared(lost, lines[0])[0] == []
    assert compared(lost, lines[0], changed, lines[2])[0] == [("modified_row", None)]
    leaf = hashlib.sha256(changed).hexdigest()
    accepted = {"accepted": [{"type": "modified_row", "block": 12, "id": 8, "leaf": leaf}]}
    found, check = compared(accepted, lines[0], changed, lines[2])
    assert (found, check.whole, check.accepted) == ([], [], [12])
    assert compared(accepted, *lines)[1].whole == [12]
    assert compared(accepted, changed, lines[2])[0] == [("deleted_row", 7)]
    assert compared({"accepted": [{"type": "deleted_row", "block": 12, "id": 7}]}, *lines[1:])[0] == []
    assert compared({})[0] == [("deleted_row", None)]
    for garbage in (b"[" * 100_000, b'{"seal":Infinity,"row":"x"}', b"\xff\xfe"):
        assert parse(garbage) is None
