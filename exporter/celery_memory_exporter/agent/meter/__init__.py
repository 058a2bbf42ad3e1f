"""One run: readings before and after it, and what runs add up to."""
