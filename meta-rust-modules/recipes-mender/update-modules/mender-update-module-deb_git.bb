SUMMARY = "Mender Update Module that installs Debian packages (from git)"
DESCRIPTION = "Installs, upgrades and removes packages with apt and dpkg, and rolls back to exactly the previous set of packages and configuration files."

require mender-update-module-git.inc

inherit update-module

RDEPENDS:${PN} = "apt dpkg"
