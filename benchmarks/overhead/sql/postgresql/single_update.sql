\set id random(1, 100000)
UPDATE item SET amount = amount + 1, updated_at = now() WHERE id = :id;
