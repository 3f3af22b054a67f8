-- What demo/run prints, asked of the log by the account compliance, which may read it and nothing else.
-- Each query has a name; %(...)s is filled in by the demo.

-- name: change
SELECT DATE_FORMAT(changed_at, '%%Y-%%m-%%d %%H:%%i:%%s') AS at, action,
       CONCAT(schema_name, '.', table_name) AS `table`, record_id, changed_by, db_user, client_ip, application_name,
       JSON_VALUE(context, '$.business_process') AS process, JSON_VALUE(context, '$.request_id') AS request,
       (SELECT JSON_ARRAYAGG(JSON_ARRAY(c.name, JSON_UNQUOTE(JSON_EXTRACT(old_values, CONCAT('$.', c.name))),
                                        JSON_UNQUOTE(JSON_EXTRACT(new_values, CONCAT('$.', c.name)))))
        FROM JSON_TABLE(changed_columns, '$[*]' COLUMNS (name VARCHAR(64) PATH '$')) AS c) AS columns
FROM audit.audit_log
WHERE JSON_VALUE(context, '$.request_id') = 'tkt-3105' AND table_name = 'order_lines'

-- name: secret
SELECT action, CONCAT(schema_name, '.', table_name) AS `table`, record_id, changed_by,
       JSON_VALUE(changed_columns, '$[0]') AS changed,
       JSON_VALUE(old_values, '$.password_hash') AS `before`, JSON_VALUE(new_values, '$.password_hash') AS `after`,
       LEFT(JSON_VALUE(new_values, '$.email'), 24) AS hashed
FROM audit.audit_log
WHERE JSON_CONTAINS(changed_columns, '"password_hash"')

-- name: secrets
SELECT password_hash AS secret FROM shop.customers
UNION SELECT email FROM shop.customers
UNION SELECT card_number FROM shop.payments

-- name: leaks
SELECT COUNT(*) AS records,
       COUNT(CASE WHEN EXISTS (
         SELECT 1 FROM JSON_TABLE(JSON_ARRAY%(secrets)s, '$[*]' COLUMNS (secret VARCHAR(200) PATH '$')) AS s
         WHERE LOCATE(s.secret, CONCAT_WS(' ', l.old_values, l.new_values, l.context) COLLATE utf8mb4_bin) > 0) THEN 1 END) AS leaks
FROM audit.audit_log AS l
WHERE l.schema_name = 'shop'

-- name: bulk
SELECT action, CONCAT(schema_name, '.', table_name) AS `table`, changed_by, transaction_id AS `transaction`,
       COUNT(*) AS records
FROM audit.audit_log
WHERE schema_name = 'shop'
GROUP BY action, schema_name, table_name, changed_by, transaction_id
ORDER BY records DESC
LIMIT 1

-- name: plain
SELECT action, CONCAT(schema_name, '.', table_name) AS `table`, record_id, changed_by, client_ip
FROM audit.audit_log
WHERE table_name = 'payments'

-- name: document
SELECT action, CONCAT(schema_name, '.', table_name) AS `table`, record_id, changed_by,
       JSON_EXTRACT(old_values, '$.attributes') AS `before`, JSON_EXTRACT(new_values, '$.attributes') AS `after`
FROM audit.audit_log
WHERE table_name = 'products'
