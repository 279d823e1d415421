"""The soak: the whole service for half an hour, asked, written to and hurt; `__main__` tells."""
