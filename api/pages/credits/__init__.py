"""Pages about credits: overview, details, exports, subscription."""
