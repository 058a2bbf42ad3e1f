"""The objects of the application, of which no code is run: what they are, how they are reached, how
much they can hold."""
