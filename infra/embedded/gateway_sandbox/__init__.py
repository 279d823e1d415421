"""The sandbox gateway: a local payment gateway with the wire formats of Razorpay and PayGlocal."""
