-- Statements only, without values, in the server's own log.
CREATE EXTENSION pgaudit;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pgaudit.log = %L', current_database(), 'write'); END $$;
