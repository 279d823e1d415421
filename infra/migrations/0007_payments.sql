-- Payments: what is projected of them, and what lies beside the log: quotes, and remarks of people.

-- Filled by the projection payments.
CREATE TABLE projections.payments (
    stream uuid NOT NULL,         -- of the organisation
    payment_id text NOT NULL,
    kind text NOT NULL,           -- credits | pro | custom
    status text NOT NULL,         -- created | pending | completed | failed | abandoned | refunded
    gateway text NOT NULL,
    order_id text,                -- the gateway's own ids
    gateway_payment_id text,
    credits bigint NOT NULL,
    unit_price_millionths bigint NOT NULL,
    credits_minor bigint NOT NULL,
    fee_minor bigint NOT NULL,
    amount_minor bigint NOT NULL, -- credits_minor + fee_minor; tax comes on top
    tax_minor bigint NOT NULL,
    currency text NOT NULL,
    price_version text NOT NULL,
    refunded_credits bigint NOT NULL,
    refunded_minor bigint NOT NULL,  -- what went back to the payer, tax included
    open_refunds integer NOT NULL,   -- asked for, and not answered by the gateway yet
    flag text,                    -- the latest reason why somebody has to look
    reason text,                  -- why it failed or was abandoned, in a code
    requested_by text,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    version bigint NOT NULL,      -- of the payment's latest event
    "position" bigint NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (stream, payment_id)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX payments_payment_id_idx ON projections.payments (payment_id);
CREATE INDEX payments_list_idx ON projections.payments (stream, created_at DESC, payment_id DESC);
CREATE INDEX payments_unpaid_idx ON projections.payments (created_at) WHERE completed_at IS NULL;
CREATE INDEX payments_refunds_idx ON projections.payments (payment_id) WHERE open_refunds > 0;
CREATE INDEX balances_pro_idx ON projections.balances (plan_expires_at) WHERE plan = 'pro';
CREATE INDEX payments_flagged_idx ON projections.payments (payment_id) WHERE flag IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON projections.payments TO creditledger_service;
GRANT SELECT ON projections.payments TO creditledger_reader;
ALTER TABLE projections.payments ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON projections.payments TO creditledger_service USING (true);
CREATE POLICY own_rows ON projections.payments FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);

CREATE TABLE ledger.purchase_quotes (
    quote_id text NOT NULL,
    organisation_id text NOT NULL,
    body bytea NOT NULL,          -- JSON of what is to be paid
    expires_at timestamptz NOT NULL,
    CONSTRAINT purchase_quotes_pkey PRIMARY KEY (quote_id)
);

CREATE INDEX purchase_quotes_expires_at_idx ON ledger.purchase_quotes (expires_at);

-- People wrote these, so they can be erased.
CREATE TABLE ledger.payment_remarks (
    payment_id text NOT NULL,
    organisation_id text NOT NULL,
    remark text NOT NULL,
    CONSTRAINT payment_remarks_pkey PRIMARY KEY (payment_id)
);

GRANT SELECT, INSERT, DELETE ON ledger.purchase_quotes, ledger.payment_remarks TO creditledger_service;
