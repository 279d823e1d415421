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

-- ---------------------------------------------------------------------------------------- a second wall
-- creditledger_reader is what the API becomes, for one transaction, to read for somebody who is of
-- organisations: it sees the rows of the one that creditledger.organisation names (its stream), and none
-- where that names none. Everybody else sees every row, as before.

DO $$
DECLARE
    projected text;
BEGIN
    FOR projected IN
        SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'projections'::regnamespace AND relkind = 'r' AND attname = 'stream'
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', projected);
        EXECUTE format('CREATE POLICY every_row ON %s TO creditledger_service USING (true)', projected);
        EXECUTE format(
            'CREATE POLICY own_rows ON %s FOR SELECT TO creditledger_reader USING'
            ' (stream = nullif(current_setting(''creditledger.organisation'', true), '''')::uuid)',
            projected
        );
    END LOOP;
END $$;

-- Events themselves have no policies: PostgreSQL refuses COPY into a table that has any.
CREATE VIEW ledger.events_in_sight WITH (security_barrier) AS
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE current_user <> 'creditledger_reader'
        OR originator_id = nullif(current_setting('creditledger.organisation', true), '')::uuid;

GRANT USAGE ON SCHEMA ledger, projections TO creditledger_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA projections TO creditledger_reader;
GRANT SELECT (notification_id) ON ledger.events TO creditledger_reader;
GRANT SELECT ON ledger.events_in_sight TO creditledger_reader, creditledger_service;
