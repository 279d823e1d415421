"""Who calls: principals, their roles, and the names of people."""
