# Replaces OE-Core's class of this name in level 1 of the tests.
