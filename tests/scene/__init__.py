"""A busy, leaking shop with everything that watches it: for the tests of what people look at, and
for the pictures in the docs."""
