-- A morning at the clinic, as the application does it: role clinic_app, which is no superuser and owns nothing.
-- Variable of psql: new_hash (the hash of a patient's new portal password).

-- Ada Lee corrects a patient's contact at the front desk: the whole context in one call, for this transaction.
BEGIN;
SELECT audit.set_context('{"user": "ada.lee", "ip_address": "10.20.4.17", "business_process": "admission",
                           "request_id": "req-7731"}');
UPDATE care.patients SET phone = '555-0199', email = 'p.seventeen@example.org' WHERE patient_id = 17;
UPDATE care.prescriptions SET dose_mg = 12.5 WHERE patient_id = 17 AND drug = 'ramipril';
COMMIT;

-- Patient 42 changes the portal password: plain settings, as an application that knows nothing of dbfleet passes them.
BEGIN;
SELECT set_config('app.user', 'patient-42', true), set_config('app.business_process', 'portal', true);
UPDATE care.patients SET portal_password_hash = :'new_hash' WHERE patient_id = 42;
COMMIT;

-- The nightly job ships what is paid: one statement, many rows.
BEGIN;
SELECT audit.set_context('{"user": "nightly-shipping", "business_process": "fulfilment"}');
UPDATE shop.orders SET status = 'shipped' WHERE status = 'paid';
COMMIT;

-- A patient asks to be forgotten: the foreign keys take appointments and prescriptions along.
BEGIN;
SELECT audit.set_context('{"user": "dpo", "business_process": "erasure", "request_id": "req-7740"}');
DELETE FROM care.patients WHERE patient_id = 99;
COMMIT;

-- Without any context: a lab machine that writes straight into a partition, and a door that has no key.
INSERT INTO care.lab_results_new (patient_id, taken_on, test, value) VALUES (17, '2026-03-02', 'HbA1c', 6.1);
INSERT INTO care.door_log VALUES (now(), 'pharmacy', 'badge-0007');

-- The table that came with the migration.
INSERT INTO care.referrals (patient_id, hospital, access_token) VALUES (17, 'St. Mary', 'tok-' || gen_random_uuid());
