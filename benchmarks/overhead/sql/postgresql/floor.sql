-- The least that a row trigger can do which keeps both images: whatever more a trigger does comes on top of this.
CREATE TABLE floor_log (old_values jsonb, new_values jsonb) WITH (autovacuum_enabled = off);

CREATE FUNCTION floor_capture() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO floor_log VALUES (to_jsonb(OLD), to_jsonb(NEW));
  RETURN NULL;
END
$$;

CREATE TRIGGER floor AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION floor_capture();
CREATE TRIGGER floor AFTER INSERT OR UPDATE OR DELETE ON batch FOR EACH ROW EXECUTE FUNCTION floor_capture();
