-- An evening at the clinic: a database administrator looks where there is no need to, and lets somebody else look too.
-- No row changes, so the triggers see nothing of it.
SELECT full_name, ssn FROM care.patients WHERE patient_id = 17;
GRANT SELECT ON care.patients TO compliance;
