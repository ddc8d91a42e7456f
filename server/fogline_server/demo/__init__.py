"""``fogline demo``: the whole loop on real data, as its users would run it: over REST and with real agents."""
