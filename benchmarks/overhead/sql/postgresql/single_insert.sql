\set n :n + 1
\set id :first + :n * :clients + :client_id
INSERT INTO item (id, email, amount, updated_at) VALUES (:id, 'someone@example.com', 10, now());
