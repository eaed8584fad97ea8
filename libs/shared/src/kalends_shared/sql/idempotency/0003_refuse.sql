-- Stores a refusal, whose command has rolled back and let go of the key. It is begun like a command, so that a refusal
-- never comes between another's command and its answer: `outcome` is `new` (this refusal is the stored answer now),
-- `stored` (the other columns are the answer that came first) or `in_flight` (another is at work, and its answer counts).
CREATE FUNCTION idempotency_refuse(
    p_tenant text, p_method text, p_path text, p_key text, p_request_hash bytea, p_status smallint, p_body bytea,
    OUT outcome text, OUT request_hash bytea, OUT status smallint, OUT error boolean, OUT headers json, OUT body bytea
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT b.outcome, b.request_hash, b.status, b.error, b.headers, b.body
    INTO idempotency_refuse.outcome, idempotency_refuse.request_hash, idempotency_refuse.status,
        idempotency_refuse.error, idempotency_refuse.headers, idempotency_refuse.body
    FROM idempotency_begin(p_tenant, p_method, p_path, p_key) b;
    IF outcome = 'new' THEN
        PERFORM idempotency_put(p_tenant, p_method, p_path, p_key, p_request_hash, p_status, true, '{}', p_body);
    END IF;
END $$;
