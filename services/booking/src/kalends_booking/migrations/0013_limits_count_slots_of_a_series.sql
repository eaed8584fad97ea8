-- Why a choice does not fit: the rule's name, or null where it fits. Reads only; the seats of `p_frees` count as free.
-- A host's being busy comes before a group's having no seats, and both before a unit's being taken (slots.md 10b).
-- A period holds the slots that there are and those of the choice, each once: so the bookings of a series count together,
-- and one of them that joins a group that is begun adds nothing.
-- (IF inside IF: what is not asked is not planned either.)
CREATE OR REPLACE FUNCTION refusal(
    p_tenant text, p_now timestamptz, p_choice integer, p_claims claim[], p_limits host_limit[], p_cap booker_cap,
    p_frees text[]
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rule text;
BEGIN
    SELECT CASE WHEN c.resource_id IS NOT NULL THEN 'resource' WHEN o.shared THEN 'capacity' ELSE 'busy' END
    INTO v_rule
    FROM unnest(p_claims) c
    JOIN reservations r ON r.tenant_id = p_tenant AND r.subject_id = c.subject_id
        AND r.during && tstzrange(c.reserved_from, c.reserved_to)
    CROSS JOIN LATERAL (
        SELECT c.capacity > 1 AND r.slot = c.slot AND r.start_at = c.start_at AND r.end_at = c.end_at AS shared
    ) o
    WHERE c.choice = p_choice AND CASE
        WHEN o.shared
        THEN live_seats(p_tenant, r.subject_id, r.slot, r.start_at, r.end_at, p_now, p_frees) + c.seats > c.capacity
        ELSE live_seats(p_tenant, r.subject_id, r.slot, r.start_at, r.end_at, p_now, p_frees) > 0 END
    ORDER BY c.resource_id NULLS FIRST, o.shared LIMIT 1;
    IF v_rule IS NOT NULL THEN
        RETURN v_rule;
    END IF;
    IF cardinality(p_limits) > 0 THEN IF EXISTS (
        SELECT FROM unnest(p_limits) l
        CROSS JOIN LATERAL (
            SELECT count(*) AS slots, sum(extract(epoch FROM o.end_at - o.start_at) / 60) AS minutes,
                bool_or(o.begun AND o.start_at = l.start_at AND o.end_at = l.end_at) AS begun
            FROM (
                SELECT u.start_at, u.end_at, bool_or(u.begun) AS begun
                FROM (
                    SELECT s.start_at, s.end_at, true AS begun FROM seats s
                    WHERE s.tenant_id = p_tenant AND s.subject_id = l.host_id AND s.slot = l.event_type_id
                        AND s.start_at >= l.from_at AND s.start_at < l.to_at AND s.in_force
                        AND (s.expires_at IS NULL OR s.expires_at > p_now) AND s.holder_id <> ALL (p_frees)
                    UNION ALL
                    SELECT c.start_at, c.end_at, false FROM unnest(p_claims) c
                    WHERE c.choice = p_choice AND c.subject_id = l.host_id AND c.slot = l.event_type_id
                        AND c.start_at >= l.from_at AND c.start_at < l.to_at
                ) u
                GROUP BY 1, 2
            ) o
        ) counted
        WHERE l.choice = p_choice AND NOT counted.begun
            AND (counted.slots > l.max_count OR counted.minutes > l.max_minutes)
    ) THEN
        RETURN 'limit';
    END IF; END IF;
    IF p_cap.at_most IS NOT NULL THEN IF p_cap.at_most <= (
        SELECT count(*) FROM bookings b
        WHERE b.tenant_id = p_tenant AND b.person_id = p_cap.person_id AND b.event_type_id = p_cap.event_type_id
            AND b.status IN ('pending', 'confirmed') AND b.end_at > p_now AND b.start_at > p_now - interval '1 day'
            AND b.id IS DISTINCT FROM p_cap.besides
    ) THEN
        RETURN 'booker';
    END IF; END IF;
    RETURN NULL;
END $$;
