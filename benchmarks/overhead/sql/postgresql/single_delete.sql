\set n :n + 1
\set id :first + :n * :clients + :client_id
DELETE FROM item WHERE id = :id;
