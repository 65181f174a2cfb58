"""What the engine covers: every architecture of a list through the whole engine, each in its own process, measured."""
