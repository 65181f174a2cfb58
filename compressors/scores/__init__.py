"""How much a site or a stretch matters: the scores that published methods rank by, and choices that follow."""
