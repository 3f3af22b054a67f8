# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description: Host name or address of the server. Left out, the local socket is used, where there is one.
    type: str
  login_port:
    description: Port of the server.
    type: int
    default: 3306
  login_user:
    description: Account to log in as. Left out, it is the one of O(config_file), or C(root).
    type: str
  login_password:
    description: Password of O(login_user). Not needed with C(unix_socket) or C(auth_socket) authentication.
    type: str
  login_unix_socket:
    description: Path of the server's Unix socket, where it is none of the distributions' usual ones.
    type: path
  config_file:
    description: Option file of the MySQL client to take user and password from; its section C([client]) is read.
    type: path
    default: ~/.my.cnf
  ca_cert:
    description: Path of the certificate authorities that the server's certificate is checked against.
    type: path
  client_cert:
    description: Path of the client's certificate.
    type: path
  client_key:
    description: Path of the client's private key.
    type: path
  check_hostname:
    description:
      - Whether the name in the server's certificate must be O(login_host), when O(ca_cert) is given; true unless set.
    type: bool
  connect_timeout:
    description: How long connecting may take, in seconds.
    type: int
    default: 30
requirements:
  - MariaDB 10.6 or newer, or MySQL 8.0 or newer
  - PyMySQL 1.0.2 or newer on the host that runs the module
"""
