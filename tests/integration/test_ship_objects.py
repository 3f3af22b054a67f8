# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write-once copies: what is shipped to S3, and a ledger there, under Object Lock."""

from __future__ import annotations

import pathlib

import botocore.exceptions
import pytest
from auditing import rollout, wanted
from databases import Database
from object_storage import moto
from shipping import SERVER, Shipper

from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger, ObjectLedger


def test_a_bucket_locks_what_is_shipped_and_the_ledger(
    trail: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    trail.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    rollout(trail, policies=[wanted("public.item")])
    trail.execute("INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 150) AS i")
    shipper = Shipper(trail.login, tmp_path, policies=[wanted("public.item")])
    shipper.seal(block_rows=100)
    with moto() as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket(lock=True)
        given = {
            "url": f"s3://{bucket}/trail",
            "storage": {"lock": "compliance"},
            "storage_options": s3.options(),
        }
        assert "keep does not say for how long" in shipper.refused(**given)
        assert shipper.ship(**given, keep="2d")["behind"] == 0
        keys = s3.keys(bucket)
        head = s3.client.head_object(Bucket=bucket, Key=keys[0])
        assert head["ObjectLockMode"] == "COMPLIANCE"
        assert len(keys) == len(shipper.seals())
        assert shipper.ship(**given, keep="2d", from_seal=1)["bytes"] == 0
        # The same rows a second time make no second version.
        assert s3.versions(bucket) == keys
        url = f"s3://{bucket}/trail/{SERVER}/{trail.name}"
        assert shipper.check(url)["problems"] == []
        locked = s3.bucket(lock=True)
        retention = {"Mode": "COMPLIANCE", "Days": 2}
        rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
        s3.client.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=rule)
        ledger = ObjectLedger(f"s3://{locked}/ledger/shop")
        ledger.append(Ledger(str(shipper.ledger)).entries()[0])
        (version,) = s3.client.list_object_versions(Bucket=locked)["Versions"]
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            s3.client.delete_object(Bucket=locked, Key=version["Key"], VersionId=version["VersionId"])
        # Such a ledger has no place beside it for a cursor.
        given = {**given, "ledger": f"s3://{locked}/ledger/shop", "url": str(shipper.directory)}
        del given["storage"]
        assert "cursor is missing: a path on the controller" in shipper.refused(**given)
        assert shipper.ship(**given, cursor=str(shipper.directory / "cursor"))["behind"] == 0
