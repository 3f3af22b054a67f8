CREATE TABLE item (
  id bigint PRIMARY KEY,
  customer_id int NOT NULL DEFAULT 4711,
  email text NOT NULL,
  name text NOT NULL DEFAULT 'Erika Mustermann',
  city text NOT NULL DEFAULT 'Springfield',
  amount numeric NOT NULL,
  quantity int NOT NULL DEFAULT 3,
  status text NOT NULL DEFAULT 'new',
  note text DEFAULT 'please leave it at the door',
  updated_at timestamptz NOT NULL
) WITH (fillfactor = 60);
