-- The database of a small web shop on a server of MariaDB or MySQL, and two more for sysbench: one that is going to be
-- audited, and one that is not. The demo fills in what stands in braces.
CREATE USER shop_app IDENTIFIED BY '${app_password}';
CREATE USER compliance IDENTIFIED BY '${app_password}';
CREATE USER sysbench IDENTIFIED BY '${app_password}';
CREATE DATABASE sbtest;
CREATE DATABASE sbtest_bare;
GRANT ALL ON sbtest.* TO sysbench;
GRANT ALL ON sbtest_bare.* TO sysbench;
CREATE DATABASE shop CHARACTER SET utf8mb4;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop_app;
USE shop;

CREATE TABLE customers (
  customer_id   INT          AUTO_INCREMENT PRIMARY KEY,
  full_name     VARCHAR(100) NOT NULL,
  email         VARCHAR(100) NOT NULL UNIQUE,
  password_hash VARCHAR(100) NOT NULL,
  search_words  TEXT
);

CREATE TABLE products (
  sku        VARCHAR(20)    PRIMARY KEY,
  title      VARCHAR(100)   NOT NULL,
  price      DECIMAL(10, 2) NOT NULL,
  attributes JSON           NOT NULL
);

CREATE TABLE orders (
  order_id    INT      AUTO_INCREMENT PRIMARY KEY,
  customer_id INT      NOT NULL,
  status      ENUM('new', 'paid', 'shipped', 'returned') NOT NULL DEFAULT 'new',
  ordered_at  DATETIME NOT NULL,
  FOREIGN KEY (customer_id) REFERENCES customers (customer_id)
);

-- A key of two columns.
CREATE TABLE order_lines (
  order_id INT            NOT NULL,
  line_no  INT            NOT NULL,
  sku      VARCHAR(20)    NOT NULL,
  quantity SMALLINT       NOT NULL,
  price    DECIMAL(10, 2) NOT NULL,
  total    DECIMAL(12, 2) AS (quantity * price) STORED,
  PRIMARY KEY (order_id, line_no)
);

CREATE TABLE payments (
  payment_id  INT            AUTO_INCREMENT PRIMARY KEY,
  order_id    INT            NOT NULL,
  card_number CHAR(16)       NOT NULL,
  amount      DECIMAL(12, 2) NOT NULL,
  answer      JSON
);

INSERT INTO products VALUES
  ('KETTLE-1', 'Kettle', 39.90, '{"litres": 1.7}'),
  ('MUG-4', 'Four mugs', 24.00, '{"pieces": 4}');
INSERT INTO customers (full_name, email, password_hash)
  WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 200)
  SELECT CONCAT('Customer ', n), CONCAT('customer', n, '@example.org'), '${first_hash}' FROM numbers;
INSERT INTO orders (customer_id, status, ordered_at)
  SELECT c.customer_id, s.status, UTC_TIMESTAMP() - INTERVAL c.customer_id HOUR
  FROM (SELECT 'paid' AS status UNION ALL SELECT 'paid' UNION ALL SELECT 'new') AS s CROSS JOIN customers AS c;
INSERT INTO order_lines (order_id, line_no, sku, quantity, price)
  SELECT o.order_id, l.line_no, l.sku, 2, l.price
  FROM orders AS o CROSS JOIN (SELECT 1 AS line_no, sku, price FROM products WHERE sku = 'KETTLE-1'
                               UNION ALL SELECT 2, sku, price FROM products WHERE sku = 'MUG-4') AS l;
INSERT INTO payments (order_id, card_number, amount)
  SELECT order_id, CONCAT('4929', LPAD(order_id, 12, '7')), 127.80 FROM orders WHERE status = 'paid';
