# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytes in the answers of modules: base64 that gets through Ansible's own search for passwords."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Any

from .errors import AuditError


def transported(value: Any, hidden: Collection[str]) -> Any:
    """Return a result with text in the place of bytes.

    Ansible hides the values of ``no_log`` options wherever it finds them in an answer, and a password of a few
    characters is found in any longer one. Spaces inside keep what only looks like one from being taken for it.

    :param hidden: what Ansible will hide.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        text = base64.b64encode(value).decode()
        for secret in hidden:
            text = text.replace(secret, " ".join(secret)) if secret else text
        return text
    if isinstance(value, Mapping):
        return {key: transported(each, hidden) for key, each in value.items()}
    return [transported(each, hidden) for each in value] if isinstance(value, (list, tuple)) else value


def received(text: str) -> bytes:
    """Return the bytes that a module has answered with.

    :raises AuditError: when something else has come into them: a password of one character cannot be kept out.
    """
    try:
        return base64.b64decode(text.replace(" ", ""), validate=True)
    except binascii.Error:
        raise AuditError(
            "the rows did not come as the host has sent them: Ansible hides passwords wherever it finds them in an "
            "answer, and one of a single character is found in any; give the login a longer login_password"
        ) from None
