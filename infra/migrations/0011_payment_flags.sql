-- Flags of payments: which are open, across all organisations, and what people wrote when they settled them.

-- Filled by the projection payment_flags: one row per thing that was flagged.
CREATE TABLE projections.payment_flags (
    stream uuid NOT NULL,         -- of the organisation
    payment_id text NOT NULL,
    flag text NOT NULL,           -- why somebody has to look, or had to
    gateway_payment_id text NOT NULL,  -- the attempt that moved the money
    amount_minor bigint NOT NULL, -- what it moved
    currency text NOT NULL,
    flagged_at timestamptz NOT NULL,
    settled_at timestamptz,       -- NULL: it is open
    settled_by text,              -- NULL as well where the money went back by itself
    refund_id text,               -- by which the money went back
    "position" bigint NOT NULL,   -- of the event that flagged it last
    CONSTRAINT payment_flags_pkey PRIMARY KEY (stream, payment_id, flag, gateway_payment_id, amount_minor)
);

CREATE INDEX payment_flags_open_idx ON projections.payment_flags ("position" DESC) WHERE settled_at IS NULL;
CREATE INDEX payment_flags_settled_idx ON projections.payment_flags ("position" DESC)
    WHERE settled_at IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON projections.payment_flags TO creditledger_service;
GRANT SELECT ON projections.payment_flags TO creditledger_reader;
ALTER TABLE projections.payment_flags ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON projections.payment_flags TO creditledger_service USING (true);
CREATE POLICY own_rows ON projections.payment_flags FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);

DROP INDEX projections.payments_flagged_idx;
ALTER TABLE projections.payments DROP COLUMN flag;

-- People wrote these, so they can be erased.
CREATE TABLE ledger.payment_flag_notes (
    payment_id text NOT NULL,
    flag text NOT NULL,
    gateway_payment_id text NOT NULL,
    amount_minor bigint NOT NULL,
    organisation_id text NOT NULL,
    note text NOT NULL,
    CONSTRAINT payment_flag_notes_pkey PRIMARY KEY (payment_id, flag, gateway_payment_id, amount_minor)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.payment_flag_notes TO creditledger_service;
