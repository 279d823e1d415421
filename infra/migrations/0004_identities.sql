-- API keys of organisations. A key is shown once; what stays is its visible id and a digest.

CREATE TABLE ledger.api_keys (
    key_id text NOT NULL,         -- the visible part of the key
    organisation_id text NOT NULL,
    name text NOT NULL,           -- what it is for, in words of whoever asked for it
    digest bytea NOT NULL,        -- SHA-256 of the whole key, which holds 256 random bits
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    last_used_at timestamptz,     -- to the minute; NULL before the first use
    revoked_at timestamptz,       -- NULL while it is live
    revoked_by text,
    CONSTRAINT api_keys_pkey PRIMARY KEY (key_id)
);

CREATE INDEX api_keys_live_idx ON ledger.api_keys (organisation_id) WHERE revoked_at IS NULL;

GRANT SELECT, INSERT, UPDATE ON ledger.api_keys TO creditledger_service;
