-- Names of people, whom events know by opaque ids. Erasing somebody empties the row and leaves it, so that their
-- history stays as it is and nobody takes their place.

CREATE TABLE ledger.people (
    user_id text NOT NULL,
    name text,
    email text,
    updated_at timestamptz NOT NULL,
    erased_at timestamptz,
    CONSTRAINT people_pkey PRIMARY KEY (user_id),
    CONSTRAINT people_erased_check CHECK (
        CASE WHEN erased_at IS NULL THEN name IS NOT NULL ELSE name IS NULL AND email IS NULL END
    )
);

GRANT SELECT, INSERT, UPDATE ON ledger.people TO creditledger_service;
