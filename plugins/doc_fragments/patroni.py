# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description: Address of the REST API of this server's Patroni, such as C(http://pg1.example.com:8008).
    type: str
    required: true
  url_username:
    description: Name that the API asks for before it changes anything (C(restapi.authentication)).
    type: str
  url_password:
    description: Password of O(url_username).
    type: str
  ca_path:
    description: Path of the certificate authorities that the API's certificate is checked against.
    type: path
  client_cert:
    description: Path of a client's certificate, in PEM format; it may have the key in it.
    type: path
  client_key:
    description: Path of the private key of O(client_cert).
    type: path
  validate_certs:
    description: Whether the API's certificate is checked.
    type: bool
    default: true
notes:
  - The API is asked from the host that runs the module, never through a proxy.
"""
