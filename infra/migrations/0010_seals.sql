-- Links of the log's chain that were written down: see projections/seals.py.

CREATE TABLE ledger.seals (
    "position" bigint NOT NULL,   -- the notification_id of the last event it covers
    events bigint NOT NULL,       -- how many events it covers: all from the first
    digest bytea NOT NULL,        -- SHA-256
    sealed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT seals_pkey PRIMARY KEY ("position")
);

CREATE TRIGGER seals_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.seals
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.seals ENABLE ALWAYS TRIGGER seals_are_facts;

GRANT SELECT, INSERT ON ledger.seals TO creditledger_service;
