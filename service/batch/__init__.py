"""Many models at once: a client of the service that optimises what a registry holds, each model once."""
