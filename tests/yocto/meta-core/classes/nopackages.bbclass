# Stands in for OE-Core's class of this name.
