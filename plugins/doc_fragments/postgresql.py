# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description: Host name or address of the server. Left out, the local socket is used.
    type: str
  login_port:
    description: Port of the server.
    type: int
    default: 5432
  login_user:
    description: Role to log in as.
    type: str
    default: postgres
  login_password:
    description: Password of O(login_user). Not needed with peer, certificate or C(.pgpass) authentication.
    type: str
  login_unix_socket:
    description: Directory of the local socket, where it is not the default one.
    type: path
  login_db:
    description: Database to work in.
    type: str
    default: postgres
  ssl_mode:
    description: How the connection is encrypted and checked, as libpq's C(sslmode).
    type: str
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
    default: prefer
  ca_cert:
    description: Path of the certificate authorities that the server's certificate is checked against.
    type: path
  ssl_cert:
    description: Path of the client's certificate.
    type: path
  ssl_key:
    description: Path of the client's private key.
    type: path
  connect_params:
    description: Any other connection parameter of libpq, for example C(connect_timeout).
    type: dict
    default: {}
requirements:
  - PostgreSQL 14 or newer
  - psycopg2 2.9 or newer on the host that runs the module
"""
