-- Somebody who may do everything on the server, and knows how the log is guarded: the guards go, the record of a command
-- names another person, the guards come back.
SELECT format('ALTER EVENT TRIGGER %I DISABLE', e.evtname) FROM pg_event_trigger AS e \gexec

SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)
FROM pg_trigger AS t JOIN pg_partition_tree('audit.audit_log_data') AS p ON p.relid = t.tgrelid
ORDER BY t.tgparentid = 0 \gexec

UPDATE audit.audit_log_data SET changed_by = :'somebody' WHERE action = 'DDL' AND db_user = 'dba_kim';

SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tgrelid::regclass, t.tgname)
FROM pg_trigger AS t JOIN pg_partition_tree('audit.audit_log_data') AS p ON p.relid = t.tgrelid
ORDER BY t.tgparentid = 0 \gexec

SELECT format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', e.evtname) FROM pg_event_trigger AS e \gexec
