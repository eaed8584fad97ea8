-- An answer shows the booker as they were as the booking was read. Where they have been erased since, it is not stored, and
-- nothing is done: the request is to come again. The lock is the one that an erasure holds, so it is one or the other. (The
-- commit of a creation has made sure of its person by itself.)
CREATE FUNCTION keep_no_answer_of_the_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock_key(NEW.tenant_id, NEW.person_id));
    IF NOT EXISTS (
        SELECT FROM person_ids k WHERE k.tenant_id = NEW.tenant_id AND k.person_id = NEW.person_id
    ) THEN
        RAISE EXCEPTION 'the booker has been erased meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_no_answer_of_the_erased BEFORE INSERT ON idempotency
FOR EACH ROW WHEN (NEW.person_id IS NOT NULL AND NEW.path <> '/bookings')
EXECUTE FUNCTION keep_no_answer_of_the_erased();
