"""Protocol version 1; everything here but this file is generated."""
