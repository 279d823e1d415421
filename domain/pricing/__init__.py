"""Plans, the rate card (credits for a photo) and the price book (money for a credit)."""
