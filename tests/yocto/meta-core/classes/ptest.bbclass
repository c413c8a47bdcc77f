# Stands in for OE-Core's class of this name.
PTEST_ENABLED = "1"
PTEST_PATH = "/usr/lib/${BPN}/ptest"
