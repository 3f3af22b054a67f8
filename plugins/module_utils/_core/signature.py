# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ed25519 keys as PEM files, as ``openssl genpkey -algorithm ed25519`` makes them.

Signing happens on the controller and nowhere else; verifying wherever a public key is.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import AuditError
from .seal import Entry, Seal

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    CRYPTOGRAPHY_ERROR = None
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies.

    :ivar raw: 32 bytes, in hex.
    """

    raw: str

    @property
    def name(self) -> str:
        """The key's identifier in seals: the first 16 hex digits of the SHA-256 of the raw key."""
        return hashlib.sha256(bytes.fromhex(self.raw)).hexdigest()[:16]

    def verifies(self, message: bytes, signature: str) -> bool:
        """Tell whether a signature (hex) is this key's."""
        try:
            key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.raw))
            key.verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


class SigningKey:
    """A private key. Its text is nowhere in its representation."""

    def __init__(self, key: Any) -> None:
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(raw.hex())

    def sign(self, seal: Seal, previous: str) -> Entry:
        """Return a seal as a signed link after the one with that digest."""
        link = seal.after(previous, self.public.name)
        return Entry(link, self._key.sign(link.message()).hex())

    def endorse(self, entry: Entry) -> Entry:
        """Return an entry with this key's signature beside the one that it has."""
        return Entry(entry.seal, entry.signature, self._key.sign(entry.seal.message()).hex())


def read_signing_key(pem: bytes, passphrase: str | None, option: str) -> SigningKey:
    """Read a private key.

    :param option: the option that it came from, for messages.
    :raises AuditError: when it is none; the message holds nothing of it.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # cryptography says "password" where it means what we call the passphrase.
        hint = ""
        if "ENCRYPTED" in pem.decode("ascii", "replace"):
            hint = f"; is {option}_passphrase missing or wrong?"
        elif passphrase:
            hint = f"; {option}_passphrase is given, and the key is not encrypted"
        raise AuditError(f"{option} is not a private key that can be read ({type(error).__name__}){hint}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise AuditError(f"{option} is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out seal.pem")
    return SigningKey(key)


def read_public_key(pem: bytes, option: str) -> PublicKey:
    """Read a public key.

    :raises AuditError: when it is none.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        private = "; it is a private one" if b"PRIVATE" in pem else ""
        raise AuditError(
            f"{option} is not a public key that can be read{private}; openssl pkey -pubout makes one"
        ) from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise AuditError(f"{option} is no Ed25519 key")
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PublicKey(raw.hex())


def trusted_keys(given: Iterable[PublicKey], entries: Iterable[Entry]) -> Mapping[str, PublicKey]:
    """Return, by name, the given keys and those that the ledger's changes of key lead to, in both directions.

    A change of key is signed by the old key and by the new one, so that either vouches for the other.
    """
    trusted = {key.name: key for key in given}
    changes = [entry for entry in entries if entry.seal.kind == "key"]
    found = True
    while found:
        found = False
        for entry in changes:
            old, new = (PublicKey(entry.seal.attested.get(name, "")) for name in ("old_key", "new_key"))
            signed = old.verifies(entry.seal.message(), entry.signature)
            endorsed = new.verifies(entry.seal.message(), entry.endorsement or "")
            if signed and endorsed and (old.name in trusted) != (new.name in trusted):
                trusted.update({old.name: old, new.name: new})
                found = True
    return trusted
