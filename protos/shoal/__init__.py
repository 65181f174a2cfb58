"""Proto package shoal."""
