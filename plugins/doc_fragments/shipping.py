# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: Keys, ledger, cursor and destination are the controller's; the host only sends rows.
    support: full
  check_mode:
    description: Says which seals of the ledger would be shipped. Neither seals nor sends anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  url:
    description:
      - Where rows are shipped to. Must be given.
      - A directory of the controller that exists (an absolute path, or V(file:///mnt/shipped)) or object storage
        (V(s3://bucket/trail), V(abfs://container@account.dfs.core.windows.net/trail)). Each seal becomes the file
        C(SERVER/DATABASE/seal_000000000012.jsonl.gz) below it. One that is there and has the seal's rows is left as
        it is.
      - V(https://collector/path). Each batch of rows is a POST of lines of JSON (C(application/x-ndjson)), compressed
        with gzip, with an C(Idempotency-Key) that is the same whenever the same rows are sent. It has been taken when
        the answer has a status of 2xx.
      - V(syslog+tls://host:6514) or V(syslog+tcp://host:601). Messages of RFC 5424, with their lengths before them.
        The rows of a seal have been taken when the collector has ended their connection in order.
    type: str
  server:
    description: Name of the server in messages and paths; the host's name in the inventory unless given.
    type: str
  name:
    description:
      - Name of the destination in the name of the cursor; made from O(url), without anything that may be secret in it,
        unless given. A log that is shipped to several destinations has a cursor for each.
    type: str
  cursor:
    description:
      - File on the controller that says which seal was taken last. C(LEDGER.NAME.cursor), with O(ledger) and O(name),
        unless given. Must be given where the ledger is a URL.
    type: path
  from_seal:
    description:
      - Number of the seal to begin with; with V(0), the one after the cursor's. For a destination that has lost rows,
        or one that is not to get what was sealed before. To be given for one run, which begins by having the cursor
        say it, so that the next one goes on even where this one fails.
    type: int
    default: 0
  follow:
    description:
      - Seconds for which to go on shipping what is sealed meanwhile; with V(0), what there is is shipped, no more.
      - PostgreSQL tells of a new seal at the moment it is stored, by NOTIFY; MariaDB and MySQL are asked twice a
        second.
      - With a signing key, it is also sealed anew, every O(interval) seconds.
    type: float
    default: 0.0
  interval:
    description: Seconds after which to look for seals, and to seal, when nothing has been heard of.
    type: float
    default: 30.0
  timeout:
    description:
      - Seconds for which a delivery is tried again that was not taken (a connection refused or broken, HTTP status 429,
        408, 425 or 5xx, for which C(Retry-After) is honoured). Then the task fails; nothing is left out.
    type: float
    default: 120.0
  collector:
    description: How an HTTP endpoint or a syslog collector is reached. All files are the controller's.
    type: dict
    suboptions:
      token:
        description: Sent as C(Authorization), a bearer token.
        type: str
      username:
        description: For HTTP basic authentication.
        type: str
      password:
        description: The same.
        type: str
      headers:
        description: Further headers of HTTP; they replace those of the same name.
        type: dict
        default: {}
      ca_cert:
        description: Certificates of who vouches for the collector, PEM; those of the system unless given.
        type: path
      client_cert:
        description: Certificate to show, PEM.
        type: path
      client_key:
        description: Its private key, unless it is in the same file.
        type: path
      batch_bytes:
        description: Bytes of lines, before they are compressed, that one HTTP request has at most; one row always fits.
        type: int
        default: 1048576
  keep:
    description:
      - For how long object storage is to keep each file, from its shipping on, as V(7y) or V(400d). Goes with
        RV(ignore:lock) or RV(ignore:lifecycle) of O(storage).
    type: str
  ledger:
    description:
      - The log's ledger, a path on the controller or a URL. Must be given, with a public key, or with a signing key
        where it is to be sealed before.
    type: str
  public_key:
    description: Ed25519 public keys on the controller, PEM files; what the ledger is verified with.
    type: list
    elements: path
    default: []
  public_key_content:
    description: Public keys as text.
    type: list
    elements: str
    default: []
"""
