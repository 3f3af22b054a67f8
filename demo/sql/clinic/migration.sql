-- A release of the application brings a table that no inventory has heard of; the baseline policy has auto_attach.
SET ROLE clinic_owner;
CREATE TABLE care.referrals (
  referral_id  int  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  patient_id   int  NOT NULL REFERENCES care.patients ON DELETE CASCADE,
  hospital     text NOT NULL,
  access_token text NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON care.referrals TO clinic_app;
