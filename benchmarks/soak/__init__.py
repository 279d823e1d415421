"""The soak test: the whole service under load for half an hour, with killed parts. See `__main__`."""
