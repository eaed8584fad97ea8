-- In PL/pgSQL, which keeps its plan.
CREATE OR REPLACE FUNCTION set_timers(
    p_tenant text, p_keys text[], p_due_at timestamptz[], p_kinds text[], p_payloads json[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
    SELECT p_tenant, t.key, t.due_at, t.due_at, t.kind, t.payload
    FROM unnest(p_keys, p_due_at, p_kinds, p_payloads) AS t (key, due_at, kind, payload)
    ON CONFLICT (tenant_id, key) DO UPDATE SET due_at = excluded.due_at, wake_at = excluded.wake_at,
        kind = excluded.kind, payload = excluded.payload, attempts = 0, error = NULL;
END $$;
