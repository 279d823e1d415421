"""Pages to sign in and to choose an organisation."""
