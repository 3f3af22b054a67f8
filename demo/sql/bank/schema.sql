-- A bank: pgbench's own tables, which pgbench itself makes and fills. Once in a database that is going to be audited,
-- and once in one that is not, so that the cost of auditing can be seen side by side on one server.
CREATE ROLE bank_app LOGIN;
CREATE DATABASE bank OWNER bank_app;
CREATE DATABASE bank_bare OWNER bank_app;
