-- The archives of all servers as the view audit, for DuckDB: duckdb -init fleet.sql
SET TIME ZONE 'UTC';
CREATE OR REPLACE VIEW audit AS
SELECT * FROM read_parquet('/srv/audit/host=*/db=*/month=*/*.parquet',
                           hive_partitioning = true, hive_types_autocast = false);
-- As Spark calls it, so that one query runs on both.
CREATE OR REPLACE MACRO get_json_object(document, path) AS json_extract_string(document, path);
