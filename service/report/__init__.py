"""The report: one schema, one page."""
