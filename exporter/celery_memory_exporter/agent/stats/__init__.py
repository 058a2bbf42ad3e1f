"""Numbers of this process, and rows that they are added up in."""
