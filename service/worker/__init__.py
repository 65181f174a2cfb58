"""A worker process: what it is told and says, how it is started, limited and confined, how it ends."""
