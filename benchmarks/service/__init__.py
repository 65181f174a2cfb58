"""What the service stands: deaths, load, bad input, many jobs."""
