"""One run exactly: what it leaves behind, who holds it, and on which line it was made."""
