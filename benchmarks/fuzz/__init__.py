"""A fuzz test of the model loaders: broken and hostile files, made from good ones, and what loading them does."""
