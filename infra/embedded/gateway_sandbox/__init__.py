"""The sandbox gateway: a payment gateway of our own on loopback, which speaks the real ones' wire formats."""
