"""Three hosts that share a database and may not do the same with it, and an attacker in the place of each."""
