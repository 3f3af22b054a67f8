-- With five columns beside the table's: among them the user, as every other contender keeps one.
CREATE EXTENSION table_log;
SELECT table_log_init(5, 'public', 'item', 'public', 'item_log');
SELECT table_log_init(5, 'public', 'batch', 'public', 'batch_log');
