"""Jobs: what they are, which states they go through, and where they are kept."""
