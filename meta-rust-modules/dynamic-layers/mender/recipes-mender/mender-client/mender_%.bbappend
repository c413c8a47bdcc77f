UPDATE_MODULES_CLIENT_PACKAGE = "mender-update"
require split-modules.inc
