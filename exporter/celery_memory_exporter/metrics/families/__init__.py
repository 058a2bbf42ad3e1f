"""What each metric is called and what it says, by what it is about."""
