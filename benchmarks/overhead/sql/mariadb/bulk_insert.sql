INSERT INTO batch SELECT * FROM source WHERE id <= {rows};
