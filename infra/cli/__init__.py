"""The command line `creditledger`."""
