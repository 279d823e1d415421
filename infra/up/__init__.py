"""`creditledger up`: the whole service as one process tree, on embedded servers unless told otherwise."""
