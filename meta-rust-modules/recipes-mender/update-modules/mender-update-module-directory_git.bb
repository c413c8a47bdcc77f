SUMMARY = "Mender Update Module that replaces a directory tree (from git)"
DESCRIPTION = "Replaces a directory tree in one step, and rolls back in one. Takes the payload of Mender's own module of this name."

require mender-update-module-git.inc

inherit update-module
