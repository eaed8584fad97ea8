-- Begins a command under a key. `outcome` is `new` (this transaction now holds the key), `stored` (the other columns
-- are the stored answer) or `in_flight` (another transaction holds the key). It writes nothing and waits for nothing.
-- The lock comes first: what its last holder committed is seen by the look after it.
CREATE OR REPLACE FUNCTION idempotency_begin(
    p_tenant text, p_method text, p_path text, p_key text,
    OUT outcome text, OUT request_hash bytea, OUT status smallint, OUT error boolean, OUT headers json, OUT body bytea
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_held boolean := pg_try_advisory_xact_lock(hashtextextended(
        'idempotency/' || current_schema() || '/' || p_tenant || '/' || p_method || '/' || p_path || '/' || p_key, 2));
BEGIN
    SELECT i.request_hash, i.status, i.error, i.headers, i.body
    INTO idempotency_begin.request_hash, idempotency_begin.status, idempotency_begin.error,
        idempotency_begin.headers, idempotency_begin.body
    FROM idempotency i
    WHERE i.tenant_id = p_tenant AND i.method = p_method AND i.path = p_path AND i.key = p_key;
    outcome := CASE WHEN FOUND THEN 'stored' WHEN v_held THEN 'new' ELSE 'in_flight' END;
END $$;
