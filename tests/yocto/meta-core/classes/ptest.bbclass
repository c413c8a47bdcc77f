# Replaces OE-Core's class of this name in level 1 of the tests.
PTEST_ENABLED = "1"
PTEST_PATH = "/usr/lib/${BPN}/ptest"
