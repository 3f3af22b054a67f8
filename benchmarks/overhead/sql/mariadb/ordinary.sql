-- item: in which single rows are changed; source and batch: where bulk work takes its rows from, and what it fills.
CREATE TABLE item (
  id BIGINT PRIMARY KEY,
  customer_id INT NOT NULL DEFAULT 4711,
  email VARCHAR(100) NOT NULL,
  name VARCHAR(100) NOT NULL DEFAULT 'Erika Mustermann',
  city VARCHAR(100) NOT NULL DEFAULT 'Springfield',
  amount DECIMAL(12, 2) NOT NULL,
  quantity INT NOT NULL DEFAULT 3,
  status VARCHAR(20) NOT NULL DEFAULT 'new',
  note VARCHAR(200) DEFAULT 'please leave it at the door',
  updated_at DATETIME(6) NOT NULL
) ENGINE = InnoDB;

INSERT INTO item (id, email, amount, updated_at)
SELECT seq, CONCAT('user', seq, '@example.com'), seq, NOW(6) FROM seq_1_to_100000;

CREATE TABLE source LIKE item;
INSERT INTO source SELECT * FROM item;
CREATE TABLE batch LIKE item;
ANALYZE TABLE item, source;
