"""Background work on credits: holds that expire."""
