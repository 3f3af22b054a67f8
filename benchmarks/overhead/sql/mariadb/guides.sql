-- The plain triggers of many guides: one log with both images, who and when, and an index for each of the questions
-- that the guides ask. A trigger knows one table and one operation.
CREATE TABLE audit_log (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  table_name VARCHAR(64) NOT NULL,
  operation VARCHAR(10) NOT NULL,
  old_data JSON,
  new_data JSON,
  changed_by VARCHAR(128) NOT NULL,
  changed_at DATETIME(6) NOT NULL,
  KEY (table_name),
  KEY (operation),
  KEY (changed_by),
  KEY (changed_at)
) ENGINE = InnoDB;

CREATE TRIGGER audit_item_insert AFTER INSERT ON item FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('item', 'INSERT', NULL, JSON_OBJECT(
    'id', NEW.id, 'customer_id', NEW.customer_id, 'email', NEW.email, 'name', NEW.name, 'city', NEW.city,
    'amount', NEW.amount, 'quantity', NEW.quantity, 'status', NEW.status, 'note', NEW.note,
    'updated_at', NEW.updated_at), USER(), NOW(6));

CREATE TRIGGER audit_item_update AFTER UPDATE ON item FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('item', 'UPDATE', JSON_OBJECT(
    'id', OLD.id, 'customer_id', OLD.customer_id, 'email', OLD.email, 'name', OLD.name, 'city', OLD.city,
    'amount', OLD.amount, 'quantity', OLD.quantity, 'status', OLD.status, 'note', OLD.note,
    'updated_at', OLD.updated_at), JSON_OBJECT(
    'id', NEW.id, 'customer_id', NEW.customer_id, 'email', NEW.email, 'name', NEW.name, 'city', NEW.city,
    'amount', NEW.amount, 'quantity', NEW.quantity, 'status', NEW.status, 'note', NEW.note,
    'updated_at', NEW.updated_at), USER(), NOW(6));

CREATE TRIGGER audit_item_delete AFTER DELETE ON item FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('item', 'DELETE', JSON_OBJECT(
    'id', OLD.id, 'customer_id', OLD.customer_id, 'email', OLD.email, 'name', OLD.name, 'city', OLD.city,
    'amount', OLD.amount, 'quantity', OLD.quantity, 'status', OLD.status, 'note', OLD.note,
    'updated_at', OLD.updated_at), NULL, USER(), NOW(6));

CREATE TRIGGER audit_batch_insert AFTER INSERT ON batch FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('batch', 'INSERT', NULL, JSON_OBJECT(
    'id', NEW.id, 'customer_id', NEW.customer_id, 'email', NEW.email, 'name', NEW.name, 'city', NEW.city,
    'amount', NEW.amount, 'quantity', NEW.quantity, 'status', NEW.status, 'note', NEW.note,
    'updated_at', NEW.updated_at), USER(), NOW(6));

CREATE TRIGGER audit_batch_update AFTER UPDATE ON batch FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('batch', 'UPDATE', JSON_OBJECT(
    'id', OLD.id, 'customer_id', OLD.customer_id, 'email', OLD.email, 'name', OLD.name, 'city', OLD.city,
    'amount', OLD.amount, 'quantity', OLD.quantity, 'status', OLD.status, 'note', OLD.note,
    'updated_at', OLD.updated_at), JSON_OBJECT(
    'id', NEW.id, 'customer_id', NEW.customer_id, 'email', NEW.email, 'name', NEW.name, 'city', NEW.city,
    'amount', NEW.amount, 'quantity', NEW.quantity, 'status', NEW.status, 'note', NEW.note,
    'updated_at', NEW.updated_at), USER(), NOW(6));

CREATE TRIGGER audit_batch_delete AFTER DELETE ON batch FOR EACH ROW
  INSERT INTO audit_log (table_name, operation, old_data, new_data, changed_by, changed_at)
  VALUES ('batch', 'DELETE', JSON_OBJECT(
    'id', OLD.id, 'customer_id', OLD.customer_id, 'email', OLD.email, 'name', OLD.name, 'city', OLD.city,
    'amount', OLD.amount, 'quantity', OLD.quantity, 'status', OLD.status, 'note', OLD.note,
    'updated_at', OLD.updated_at), NULL, USER(), NOW(6));
