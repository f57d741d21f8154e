"""All results as one page for a browser, derived from records alone; it loads nothing and needs no torch."""
