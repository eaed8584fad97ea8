-- Hosts, schedules, locations, resources, event types and booking pages as they are now; their history is in events.
-- `body` is the public answer, byte for byte. `aside` holds what is not shown: since when each host takes part.
CREATE TABLE objects (
    tenant_id text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    version integer NOT NULL,
    slug text,
    body json NOT NULL,
    aside json,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX objects_newest ON objects (tenant_id, kind, seq);
CREATE UNIQUE INDEX objects_slug ON objects (tenant_id, slug);

-- Who names whom, so that nothing is deleted that something live still names.
CREATE TABLE refs (
    tenant_id text NOT NULL,
    from_id text NOT NULL,
    target_id text NOT NULL,
    PRIMARY KEY (tenant_id, from_id, target_id)
);
CREATE INDEX refs_target ON refs (tenant_id, target_id);

-- What bookings and holds in force reserve: a row for each host, and for each unit of a resource (`resource_id` set).
-- Times are UTC minutes since 1970. A row is as it was seen from `seen_from` until `seen_until`; null: it still is.
CREATE TABLE busy (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    subject_id text NOT NULL,
    resource_id text,
    event_type_id text NOT NULL,
    reserved_from integer NOT NULL,
    reserved_to integer NOT NULL,
    start_min integer NOT NULL,
    end_min integer NOT NULL,
    seats integer NOT NULL,
    status text NOT NULL,
    lapses_at timestamptz,
    created_at timestamptz NOT NULL,
    seen_from timestamptz NOT NULL,
    seen_until timestamptz,
    PRIMARY KEY (tenant_id, id, version, subject_id)
);
CREATE INDEX busy_current ON busy (tenant_id, subject_id, reserved_to) WHERE seen_until IS NULL;
CREATE INDEX busy_units ON busy (tenant_id, resource_id, reserved_to) WHERE seen_until IS NULL AND resource_id IS NOT NULL;
CREATE INDEX busy_event_type ON busy (tenant_id, event_type_id, created_at) WHERE seen_until IS NULL;

-- External busy time and own blocks: a row for each event of a calendar, with all its busy intervals, [[from, to], ...].
CREATE TABLE calendar_busy (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    host_id text NOT NULL,
    calendar_id text,
    intervals json NOT NULL,
    busy_to integer NOT NULL,
    seen_from timestamptz NOT NULL,
    seen_until timestamptz,
    PRIMARY KEY (tenant_id, id, version)
);
CREATE INDEX calendar_busy_current ON calendar_busy (tenant_id, host_id, busy_to) WHERE seen_until IS NULL;

CREATE TABLE calendars (
    tenant_id text NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    host_id text NOT NULL,
    counts boolean NOT NULL,
    last_synced_at timestamptz,
    stale_since timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX calendars_host ON calendars (tenant_id, host_id);

-- What a projection has changed lately, for replicas that missed the broadcast. Only ever inserted, pruned after minutes.
CREATE TABLE touched (
    tx bigint NOT NULL,
    tenant_id text NOT NULL,
    key text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX touched_tx ON touched (tx);
