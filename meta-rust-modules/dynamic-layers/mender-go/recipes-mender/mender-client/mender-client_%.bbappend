# The client in Go, up to 3.5: one package.
inherit update-modules-split
