"""Methods side by side: the grid, its runs as records, tables and pictures of them."""
