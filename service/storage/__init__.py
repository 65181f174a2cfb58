"""Where files are: the place, files by their SHA-256 in it, who needs which bytes, and what nobody names any more."""
