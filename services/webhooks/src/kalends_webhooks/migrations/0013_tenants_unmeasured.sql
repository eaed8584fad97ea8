-- Statistics of an account mislead: one that has come since they were made is taken for one of few rows, and any index on the
-- account for as good as the one that is meant: a delivery was found by its id among all of its account's. Without them the
-- columns behind the account decide.
ALTER TABLE queue ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE public_events ALTER COLUMN tenant_id SET STATISTICS 0;
ALTER TABLE deliveries ALTER COLUMN tenant_id SET STATISTICS 0;

-- As in 0002, and each day's partition goes by the same.
CREATE OR REPLACE FUNCTION keep_deliveries(p_days integer, p_ahead integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_day date;
    v_name text;
    v_low text;
    v_high text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('keep_deliveries/' || current_schema(), 5)) THEN
        RETURN NULL;
    END IF;
    FOR v_day IN SELECT d FROM generate_series(current_date, current_date + p_ahead, interval '1 day') AS d LOOP
        v_name := 'deliveries_' || to_char(v_day, 'YYYYMMDD');
        v_low := delivery_floor(v_day::timestamp AT TIME ZONE 'UTC');
        v_high := delivery_floor((v_day + 1)::timestamp AT TIME ZONE 'UTC');
        IF to_regclass(v_name) IS NULL
            AND NOT EXISTS (SELECT 1 FROM deliveries_default d WHERE d.id >= v_low AND d.id < v_high)
        THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF deliveries FOR VALUES FROM (%L) TO (%L)', v_name, v_low, v_high);
            EXECUTE format('ALTER TABLE %I ALTER COLUMN tenant_id SET STATISTICS 0', v_name);
            RETURN v_name;
        END IF;
    END LOOP;
    SELECT c.relname INTO v_name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'deliveries'::regclass AND c.relname ~ '^deliveries_[0-9]{8}$'
        AND c.relname < 'deliveries_' || to_char(current_date - p_days, 'YYYYMMDD')
    ORDER BY c.relname LIMIT 1;
    IF FOUND THEN
        EXECUTE format('DROP TABLE %I', v_name);
        RETURN v_name;
    END IF;
    RETURN NULL;
END $$;
