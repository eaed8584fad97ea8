-- What is to happen at a time. `key` is `<stream id>/<what>`: timers of one stream fire one after another, by due_at.
-- `wake_at` is due_at, or later after a failed attempt.
CREATE TABLE timers (
    tenant_id text NOT NULL,
    key text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    wake_at timestamptz NOT NULL,
    kind text NOT NULL,
    payload json NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    PRIMARY KEY (tenant_id, key)
) WITH (fillfactor = 90);
CREATE INDEX timers_wake ON timers (wake_at, tenant_id, key);

-- Tenants whose test clock stands still: the worker skips their timers, and moving the clock fires them.
CREATE TABLE clocks (
    tenant_id text PRIMARY KEY,
    frozen_at timestamptz NOT NULL
);

CREATE FUNCTION timer_group(p_key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT split_part(p_key, '/', 1)
$$;

-- Sets a timer, or moves the one of that key.
CREATE FUNCTION set_timer(p_tenant text, p_key text, p_due_at timestamptz, p_kind text, p_payload json)
RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
    VALUES (p_tenant, p_key, p_due_at, p_due_at, p_kind, p_payload)
    ON CONFLICT (tenant_id, key) DO UPDATE SET due_at = excluded.due_at, wake_at = excluded.wake_at,
        kind = excluded.kind, payload = excluded.payload, attempts = 0, error = NULL
$$;

-- The same for several, of one transaction; keys must differ.
CREATE FUNCTION set_timers(p_tenant text, p_keys text[], p_due_at timestamptz[], p_kinds text[], p_payloads json[])
RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
    SELECT p_tenant, t.key, t.due_at, t.due_at, t.kind, t.payload
    FROM unnest(p_keys, p_due_at, p_kinds, p_payloads) AS t (key, due_at, kind, payload)
    ON CONFLICT (tenant_id, key) DO UPDATE SET due_at = excluded.due_at, wake_at = excluded.wake_at,
        kind = excluded.kind, payload = excluded.payload, attempts = 0, error = NULL
$$;

CREATE FUNCTION cancel_timers(p_tenant text, p_keys text[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    DELETE FROM timers WHERE tenant_id = p_tenant AND key = ANY (p_keys)
$$;

-- Claims one due timer for this transaction; no row where it is gone, moved, or another worker is busy with its stream.
-- The claim is an advisory lock on the stream, not a row lock: a row lock would take a transaction id before the locks
-- of the command that follows, and so let its events sort before those of a command that it waited for.
CREATE FUNCTION claim_timer(p_tenant text, p_key text, p_due_at timestamptz)
RETURNS SETOF timers LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(
        'timers/' || current_schema() || '/' || p_tenant || '/' || timer_group(p_key), 3))
    THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT t.* FROM timers t
    WHERE t.tenant_id = p_tenant AND t.key = p_key AND t.due_at = p_due_at
        AND NOT EXISTS (
            SELECT 1 FROM timers e WHERE e.tenant_id = p_tenant AND e.key >= timer_group(p_key) || '/'
                AND e.key < timer_group(p_key) || '0' AND (e.due_at, e.key) < (p_due_at, p_key));
END $$;
