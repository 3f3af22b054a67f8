INSERT INTO batch SELECT * FROM source;
