"""What all queries share: named SQL, cursors, row security, errors."""
