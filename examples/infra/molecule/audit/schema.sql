CREATE TABLE patients (id int PRIMARY KEY, name text NOT NULL, ssn text);
CREATE TABLE visits (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES patients, note text);
