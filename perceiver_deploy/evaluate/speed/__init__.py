"""Speed: a process for each candidate, rounds, ranking, profiles."""
