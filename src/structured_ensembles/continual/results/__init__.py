"""What many streams came to: records, tables, curves, pictures, a page."""
