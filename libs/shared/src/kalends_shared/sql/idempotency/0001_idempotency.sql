-- Answers to POSTs that carried an Idempotency-Key. `body` is the answer's bytes with secrets nulled, or, where `error`
-- is true, an ErrorBody. `person_id` lets an erasure find the answers that hold a person's data.
CREATE TABLE idempotency (
    tenant_id text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint NOT NULL,
    error boolean NOT NULL DEFAULT false,
    headers json NOT NULL,
    body bytea NOT NULL,
    person_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, method, path, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);
CREATE INDEX idempotency_person ON idempotency (tenant_id, person_id) WHERE person_id IS NOT NULL;

-- Begins a command under a key. `outcome` is `new` (this transaction now holds the key), `stored` (the other columns
-- are the stored answer) or `in_flight` (another transaction holds the key). It writes nothing and waits for nothing.
CREATE FUNCTION idempotency_begin(
    p_tenant text, p_method text, p_path text, p_key text,
    OUT outcome text, OUT request_hash bytea, OUT status smallint, OUT error boolean, OUT headers json, OUT body bytea
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT i.request_hash, i.status, i.error, i.headers, i.body
        INTO idempotency_begin.request_hash, idempotency_begin.status, idempotency_begin.error,
            idempotency_begin.headers, idempotency_begin.body
        FROM idempotency i
        WHERE i.tenant_id = p_tenant AND i.method = p_method AND i.path = p_path AND i.key = p_key;
        IF FOUND THEN
            outcome := 'stored';
            RETURN;
        END IF;
        -- The holder of the key may have committed between the first look and this lock: so there is a second look.
        IF attempt = 1 AND NOT pg_try_advisory_xact_lock(hashtextextended(
            'idempotency/' || current_schema() || '/' || p_tenant || '/' || p_method || '/' || p_path || '/' || p_key, 2))
        THEN
            outcome := 'in_flight';
            RETURN;
        END IF;
    END LOOP;
    outcome := 'new';
END $$;

-- Stores an answer unless one is there; the first stored wins. Returns whether this one was stored.
CREATE FUNCTION idempotency_put(
    p_tenant text, p_method text, p_path text, p_key text, p_request_hash bytea,
    p_status smallint, p_error boolean, p_headers json, p_body bytea, p_person_id text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO idempotency (tenant_id, method, path, key, request_hash, status, error, headers, body, person_id)
    VALUES (p_tenant, p_method, p_path, p_key, p_request_hash, p_status, p_error, p_headers, p_body, p_person_id)
    ON CONFLICT (tenant_id, method, path, key) DO NOTHING;
    RETURN FOUND;
END $$;
