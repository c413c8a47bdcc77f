# Puts Update Modules of the Mender client into packages of their own, mender-client-module-NAME, for each NAME in
# UPDATE_MODULES_SPLIT_FROM_CLIENT that the client has. The client's package recommends them: an image has them, unless it has
# another package with an Update Module of the same name, which conflicts with the client's.
#
# Inherited by the bbappends of the client's recipes. Without the variable, nothing of the recipes changes.

UPDATE_MODULES_SPLIT_FROM_CLIENT ??= ""

# The package that has the modules of the client otherwise.
UPDATE_MODULES_CLIENT_PACKAGE ??= "${PN}"

# nooelint: oelint.task.noanonpython - the functions that split packages depend on the variable
python() {
    import re
    names = d.getVar('UPDATE_MODULES_SPLIT_FROM_CLIENT').split()
    if not names or bb.data.inherits_class('native', d):
        return
    for name in names:
        if not re.fullmatch('[a-z0-9][a-z0-9+.-]*', name):
            bb.fatal(f'invalid UPDATE_MODULES_SPLIT_FROM_CLIENT: "{name}" is not the file name of an Update Module: '
                     f'list names, as in "deb directory"')
    d.appendVar('PACKAGES_DYNAMIC', f" ^mender-client-module-({'|'.join(map(re.escape, names))})$")
    d.prependVar('PACKAGESPLITFUNCS', 'update_modules_split ')
}

# nooelint: oelint.task.docstrings - a function, no task
python update_modules_split() {
    import re
    names = '|'.join(map(re.escape, d.getVar('UPDATE_MODULES_SPLIT_FROM_CLIENT').split()))
    client = d.getVar('UPDATE_MODULES_CLIENT_PACKAGE')
    packages = do_split_packages(d, '${datadir}/mender/modules/v3', f'^({names})$', 'mender-client-module-%s',
                                 "The Mender client's own Update Module %s", extra_depends=client, prepend=True)
    d.appendVar(f'RRECOMMENDS:{client}', ' ' + ' '.join(sorted(packages)))
}
