"""`creditledger up`: the whole service as one process tree, on embedded servers by default."""
