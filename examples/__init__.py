"""Programs that use Shoal the way its users do."""
