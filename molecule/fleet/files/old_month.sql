BEGIN;
SET LOCAL ROLE audit_owner;
SET LOCAL TimeZone = 'UTC';
CREATE TABLE audit.audit_log_2025_06 (LIKE audit.audit_log_data INCLUDING ALL);
CREATE TRIGGER dbfleet_audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.audit_log_2025_06
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.audit_log_2025_06 ENABLE ALWAYS TRIGGER dbfleet_audit_guard;
ALTER TABLE audit.audit_log_data DETACH PARTITION audit.audit_log_past;
ALTER TABLE audit.audit_log_data
  ATTACH PARTITION audit.audit_log_past FOR VALUES FROM (MINVALUE) TO ('2025-06-01');
ALTER TABLE audit.audit_log_data
  ATTACH PARTITION audit.audit_log_2025_06 FOR VALUES FROM ('2025-06-01') TO ('2025-07-01');
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user, new_values)
SELECT timestamptz '2025-06-01' + n * interval '1 minute', '1', 'EVENT', 'ada', 'shop_app', jsonb_build_object('n', n)
FROM generate_series(1, 30000) AS n;
COMMIT;
