-- A morning at the shop, as the application does it: account shop_app, which has no right but to its own tables.
-- The demo fills in new_hash, the hash of a customer's new password.

-- Noor Haddad of the support settles a complaint: the whole context in one call. It holds until it is replaced, so an
-- application with a pool of connections calls this for every request.
START TRANSACTION;
CALL audit.set_context('{"user": "noor.haddad", "ip_address": "10.30.2.8", "business_process": "complaint",
                         "request_id": "tkt-3105", "application_name": "shop-desk"}');
UPDATE order_lines SET quantity = 1, price = 21.60 WHERE order_id = 117 AND line_no = 2;
UPDATE products SET attributes = JSON_SET(attributes, '$.fragile', TRUE) WHERE sku = 'MUG-4';
COMMIT;

-- Customer 42 changes the password: plain variables, as an application that knows nothing of dbfleet passes them.
CALL audit.set_context(NULL);
SET @audit_user = 'customer-42', @audit_context = '{"business_process": "account"}';
UPDATE customers SET password_hash = '${new_hash}' WHERE customer_id = 42;

-- The nightly job ships what is paid: one statement, many rows.
CALL audit.set_context('{"user": "nightly-job", "business_process": "fulfilment"}');
UPDATE orders SET status = 'shipped' WHERE status = 'paid';

-- Without any context: somebody pays.
CALL audit.set_context(NULL);
INSERT INTO payments (order_id, card_number, amount, answer)
  VALUES (600, '4929000011112222', 127.80, '{"approved": true, "code": "A-77"}');
