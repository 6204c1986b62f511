"""foodgen trains, samples and scores generators of small photos."""
