-- What names people around payments: billing details, which can be erased, and documents, which are frozen.

CREATE TABLE ledger.billing_details (
    stream uuid NOT NULL,             -- the organisation's
    details jsonb NOT NULL,           -- domain.billing.BillingDetails
    salt bytea NOT NULL,              -- of the digest in the event; erased with the details
    changed_at timestamptz NOT NULL,
    changed_by text,
    CONSTRAINT billing_details_pkey PRIMARY KEY (stream)
);

CREATE TABLE ledger.invoice_documents (
    number text NOT NULL,
    stream uuid NOT NULL,             -- the organisation's
    payment_id text NOT NULL,
    refund_id text NOT NULL,          -- of a credit note; empty for the invoice of the payment
    issued_at timestamptz NOT NULL,
    total_minor bigint NOT NULL,      -- what the payer paid, or got back
    document text NOT NULL,           -- JSON as it was issued, byte for byte: the event has its SHA-256
    CONSTRAINT invoice_documents_pkey PRIMARY KEY (number),
    CONSTRAINT invoice_documents_once UNIQUE (payment_id, refund_id)
);

CREATE INDEX invoice_documents_list_idx ON ledger.invoice_documents (stream, issued_at DESC, number DESC);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.billing_details TO creditledger_service;
GRANT SELECT, INSERT ON ledger.invoice_documents TO creditledger_service;

-- The second wall, as around the projections.
GRANT SELECT (stream, details, changed_at, changed_by) ON ledger.billing_details TO creditledger_reader;
GRANT SELECT ON ledger.invoice_documents TO creditledger_reader;

ALTER TABLE ledger.billing_details ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.invoice_documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON ledger.billing_details TO creditledger_service USING (true);
CREATE POLICY every_row ON ledger.invoice_documents TO creditledger_service USING (true);
CREATE POLICY own_rows ON ledger.billing_details FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);
CREATE POLICY own_rows ON ledger.invoice_documents FOR SELECT TO creditledger_reader
    USING (stream = nullif(current_setting('creditledger.organisation', true), '')::uuid);
