SELECT p.partition_description INTO @bound FROM information_schema.partitions AS p
WHERE p.table_schema = 'audit' AND p.table_name = 'audit_log_data' AND p.partition_name = 'p_past';
SET @statement = CONCAT("ALTER TABLE audit.audit_log_data REORGANIZE PARTITION p_past INTO (",
  "PARTITION p_past VALUES LESS THAN ('2025-06-01'), PARTITION p2025_06 VALUES LESS THAN ('2025-07-01'), ",
  "PARTITION p2025_07 VALUES LESS THAN (", @bound, "))");
PREPARE old_month FROM @statement;
EXECUTE old_month;
INSERT INTO audit.audit_log_data (changed_at, action, changed_by, db_user, new_values)
WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 900)
SELECT CAST('2025-06-01' AS DATETIME(6)) + INTERVAL a.n MINUTE, 'EVENT', 'ada', 'shop_app', JSON_OBJECT('n', a.n, 'm', b.n)
FROM numbers AS a JOIN numbers AS b ON b.n <= 30;
