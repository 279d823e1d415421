"""The common parts of all pages: routing, rendering, forms, formats, labels."""
