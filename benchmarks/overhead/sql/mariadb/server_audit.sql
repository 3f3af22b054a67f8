-- MariaDB's own plugin: the statements that change rows, without the rows, in a file.
INSTALL SONAME 'server_audit';
SET GLOBAL server_audit_events = 'QUERY_DML';
SET GLOBAL server_audit_logging = ON;
