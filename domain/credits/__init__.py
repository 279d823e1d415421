"""The credits of an organisation: lots, usage charges, refunds, holds, auto top-up."""
