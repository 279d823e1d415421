-- What the pages keep of the people who use them. Only a digest of a session's id is here.

CREATE TABLE ledger.sessions (
    digest bytea NOT NULL,        -- SHA-256 of the session's id, which holds 256 random bits
    subject text NOT NULL,
    kind text NOT NULL,           -- person | staff | auditor
    memberships jsonb NOT NULL,   -- of a person: the role in each organisation, by its id
    ticket_id text,               -- of the link it was opened with: a link opens one session
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,         -- NULL until somebody signs out
    CONSTRAINT sessions_pkey PRIMARY KEY (digest),
    CONSTRAINT sessions_ticket_id_key UNIQUE (ticket_id)
);

CREATE INDEX sessions_expires_at_idx ON ledger.sessions (expires_at);

CREATE TABLE ledger.page_preferences (
    subject text NOT NULL,
    shows_price boolean NOT NULL DEFAULT false,
    scheme text NOT NULL DEFAULT 'system',  -- system | light | dark
    CONSTRAINT page_preferences_pkey PRIMARY KEY (subject)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.sessions TO creditledger_service;
GRANT SELECT, INSERT, UPDATE ON ledger.page_preferences TO creditledger_service;

-- Staff look organisations up by the beginning of their id.
CREATE INDEX balances_organisation_id_idx ON projections.balances (organisation_id text_pattern_ops);
