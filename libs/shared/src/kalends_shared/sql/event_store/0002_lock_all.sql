-- Takes the locks of many tenants' keys, in the order in which lock_keys takes those of one, so that the two never
-- deadlock. The arrays are parallel. Call it before any write.
CREATE FUNCTION lock_all(p_tenants text[], p_keys text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(sorted.h)
    FROM (
        SELECT DISTINCT lock_key(k.tenant, k.key) AS h FROM unnest(p_tenants, p_keys) AS k (tenant, key) ORDER BY h
    ) AS sorted;
END $$;
