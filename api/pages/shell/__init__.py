"""What all pages share: layout, routing, rendering, forms, formats, labels."""
