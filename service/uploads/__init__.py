"""Files on their way in: announced, written piece by piece, put together."""
