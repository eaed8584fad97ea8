-- Accounts, their API keys, the clocks of test tenants, and the gateways that are alive.

CREATE TABLE accounts (
    id text PRIMARY KEY,
    parent_id text REFERENCES accounts,
    type text NOT NULL DEFAULT 'account' CHECK (type IN ('account', 'hub')),
    name text NOT NULL,
    slug text NOT NULL UNIQUE,
    timezone text NOT NULL,
    -- The most that a key of this account may be given; null is without bound. Only the operator sets them.
    ceiling_per_minute integer CHECK (ceiling_per_minute > 0),
    ceiling_per_hour integer CHECK (ceiling_per_hour > 0),
    metadata json NOT NULL DEFAULT '{}',
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A key is its tenant's, that is, its account's in one mode. A secret is stored as its SHA-256 alone: it is 256 random
-- bits, so there is nothing that a slow hash would guard it from.
CREATE TABLE api_keys (
    tenant_id text NOT NULL,
    id text NOT NULL,
    account_id text NOT NULL REFERENCES accounts,
    mode text NOT NULL CHECK (mode IN ('live', 'test')),
    type text NOT NULL DEFAULT 'account' CHECK (type IN ('account', 'hub')),
    name text NOT NULL,
    scopes text[] NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL UNIQUE,
    expires_at timestamptz,
    -- Null is without limit, which only the operator can give.
    per_minute integer,
    per_hour integer,
    last_used_at timestamptz,
    metadata json NOT NULL DEFAULT '{}',
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);

-- The time of a test tenant, while it is stopped.
CREATE TABLE test_clocks (
    tenant_id text PRIMARY KEY,
    stopped_at timestamptz NOT NULL
);

-- The gateways that serve, each of which must have forgotten a key before its revocation is answered.
CREATE TABLE replicas (
    id text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
