CREATE TABLE item (
  id bigint PRIMARY KEY,
  email text NOT NULL,
  amount numeric NOT NULL,
  updated_at timestamptz NOT NULL
) WITH (fillfactor = 60);
