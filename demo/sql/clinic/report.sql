-- What demo/run prints, asked of the log by the role compliance, which may read it and nothing else.
-- Each query has a name; %(...)s is filled in by the demo.

-- name: change
SELECT to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS at, action,
       schema_name || '.' || table_name AS "table", record_id, changed_by, db_user, host(client_ip) AS client_ip,
       application_name, context ->> 'business_process' AS process, context ->> 'request_id' AS request,
       (SELECT json_agg(json_build_array(c, old_values ->> c, new_values ->> c))::text
        FROM unnest(changed_columns) AS c) AS columns
FROM audit.audit_log
WHERE context ->> 'request_id' = 'req-7731' AND table_name = 'patients'

-- name: secret
SELECT action, schema_name || '.' || table_name AS "table", record_id, changed_by,
       array_to_string(changed_columns, ', ') AS changed,
       old_values ->> 'portal_password_hash' AS before, new_values ->> 'portal_password_hash' AS after,
       left(new_values ->> 'ssn', 24) AS hashed
FROM audit.audit_log
WHERE 'portal_password_hash' = ANY (changed_columns)

-- name: secrets
SELECT portal_password_hash AS secret FROM care.patients UNION SELECT ssn FROM care.patients

-- name: leaks
SELECT count(*) AS records,
       count(*) FILTER (WHERE EXISTS (SELECT FROM unnest(%(secrets)s) AS s WHERE strpos(line, s) > 0)) AS leaks
FROM (SELECT d::text AS line FROM audit.audit_log AS d OFFSET 0) AS l

-- name: bulk
SELECT action, schema_name || '.' || table_name AS "table", changed_by, transaction_id::text AS transaction, count(*) AS records
FROM audit.audit_log
WHERE action <> 'DDL'
GROUP BY 1, 2, 3, 4
ORDER BY records DESC
LIMIT 1

-- name: cascade
SELECT changed_by, request, string_agg(format('%%s %%s', records, table_name), ', ' ORDER BY records, table_name) AS rows
FROM (SELECT changed_by, context ->> 'request_id' AS request, table_name, count(*) AS records
      FROM audit.audit_log
      WHERE action = 'DELETE' AND context ->> 'business_process' = 'erasure'
      GROUP BY 1, 2, 3) AS t
GROUP BY 1, 2

-- name: plain
SELECT action, schema_name || '.' || table_name AS "table", record_id, changed_by, host(client_ip) AS client_ip
FROM audit.audit_log
WHERE table_name IN ('lab_results', 'door_log') AND action <> 'DDL'
ORDER BY id

-- name: new_table
SELECT l.action, l.schema_name || '.' || l.table_name AS "table", p.name AS policy,
       l.new_values ->> 'access_token' AS access_token
FROM audit.audit_log AS l JOIN audit.policy AS p USING (policy_id)
WHERE l.table_name = 'referrals'

-- name: commands_by
SELECT action, new_values ->> 'event' AS event, application_name, new_values ->> 'statement' AS statement
FROM audit.audit_log
WHERE db_user = %(db_user)s
ORDER BY id
