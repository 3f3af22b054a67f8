-- What single rows are changed in, where bulk work takes its rows from, and what it fills and empties.
INSERT INTO item (id, email, amount, updated_at)
SELECT n, format('user%%s@example.com', n), n, now() FROM generate_series(1, 100000) AS n;
CREATE TABLE source AS SELECT * FROM item LIMIT %s;
CREATE TABLE batch (LIKE item INCLUDING ALL);
ANALYZE;
