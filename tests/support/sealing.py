# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys, ledgers, and the seal and verify actions, without the process of ansible-playbook around them.

What runs is the actions' own code and the real module against a real server; only how a module gets to its host is left
out, which test_seal_action.py looks at.
"""

from __future__ import annotations

import functools
import pathlib
import types
import typing as t

import running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _seal_action, _seal_actions
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger
from ansible_collections.dbfleet.audit.plugins.plugin_utils._sealing import Sealing

_PEM = serialization.Encoding.PEM


class KeyPair(t.NamedTuple):
    """Paths of PEM files."""

    private: str
    public: str


def make_key(directory: pathlib.Path, name: str = "seal", passphrase: str | None = None) -> KeyPair:
    """Make a key as openssl does."""
    key = ed25519.Ed25519PrivateKey.generate()
    encryption: t.Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    private.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return KeyPair(str(private), str(public))


class _Archiving(_seal_action.SealAction):
    """What a run does whose rows leave the log for an archive."""

    def work(self) -> dict[str, t.Any]:
        """Attest it."""
        step = functools.partial(self.step, "seal", ids=100_000, seconds=20)
        key = self.signing_key("signing_key")
        assert key
        sealing = Sealing(step, Ledger(self.option("ledger")), key, None)
        return sealing.run(also=lambda: {"kind": "archive", "attested": {"seals": self.option("_seals")}})


class Sealer:
    """Seals and verifies one log.

    :ivar rollout: what the verify module compares the rest with: policies and so on.
    :ivar calls: the modules that ran on the host, with what they were given.
    :ivar cut: how many calls of the host go through; then the controller is gone.
    :ivar meanwhile: what somebody else does before each call of the host.
    """

    def __init__(
        self, login: t.Mapping[str, t.Any], directory: pathlib.Path, engine: str = "postgresql", **rollout: t.Any
    ) -> None:
        self.login = dict(login)
        self.rollout = rollout
        self.engine = engine
        self.directory = directory
        self.key = make_key(directory)
        self.ledger = directory / "ledger.jsonl"
        self.calls: list[dict[str, t.Any]] = []
        self.cut: int | None = None
        self.meanwhile: t.Callable[[], None] | None = None

    def seal(self, **options: t.Any) -> dict[str, t.Any]:
        """Run the seal action; an error of it is raised."""
        arguments = {"signing_key": self.key.private, "ledger": str(self.ledger), **options}
        return self._act(_seal_actions.Seal, f"{self.engine}_audit_seal", arguments)

    def verify(self, **options: t.Any) -> dict[str, t.Any]:
        """Run the verify action, which does not fail over problems."""
        keys = {"public_key": [self.key.public], "ledger": str(self.ledger), "fail_on_problem": False}
        arguments = {"self_test": False, **self.rollout, **keys, **options}
        return self._act(_seal_actions.Verify, f"{self.engine}_audit_verify", arguments)

    def archive(self, seals: list[list[int]]) -> None:
        """Attest that the rows of seals have left the log for an archive."""
        arguments = {"signing_key": self.key.private, "ledger": str(self.ledger), "_seals": seals}
        self._act(_Archiving, f"{self.engine}_audit_seal", arguments)

    def problems(self, **options: t.Any) -> list[tuple[str, int | None, int | None]]:
        """Return what verification finds, as (type, block, id)."""
        found = self.verify(**options)["problems"]
        return [(problem["type"], problem.get("block"), problem.get("id")) for problem in found]

    def refusal(self, **options: t.Any) -> str:
        """Return the message of a sealing run that must fail."""
        try:
            result = self.seal(**options)
        except AuditError as error:
            return str(error)
        raise AssertionError(f"it was not refused: {result}")

    def _act(self, action: type[t.Any], module: str, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        sealer = self

        class Direct(action):  # type: ignore[misc]
            """The action with a host that is this machine."""

            def __init__(self) -> None:
                self.arguments = {**sealer.login, **arguments}
                self._task = types.SimpleNamespace(check_mode=arguments.get("_check_mode", False))
                self.vars: dict[str, t.Any] = {}

            def on_host(self, **more: t.Any) -> dict[str, t.Any]:
                """Run the module."""
                hidden = self.controller
                given = {key: value for key, value in self.arguments.items() if key not in hidden and key[0] != "_"}
                sealer.calls.append({**given, **more})
                if sealer.cut is not None:
                    if sealer.cut == 0:
                        raise ConnectionAbortedError("the controller is gone")
                    sealer.cut -= 1
                if sealer.meanwhile:
                    sealer.meanwhile()
                check_mode = self._task.check_mode
                result = running.run_module(module, check_mode=check_mode, may_fail=True, **{**given, **more})
                if result.failed:
                    raise _seal_action.StepError(result)
                return result

            def leave_host(self) -> None:
                """Leave it as it is: nothing was brought there."""

        return Direct().work()
