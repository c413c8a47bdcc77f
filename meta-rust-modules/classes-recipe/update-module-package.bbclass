# What every recipe of an Update Module packages: the executable where the Mender client looks for it, the device's
# settings, and the unit that recovers an interrupted update at boot. update-module builds a module from source; a recipe of
# an executable that is built already inherits this class alone. README.md has the variables.

# The payload type. The client runs the executable of this name.
UPDATE_MODULE ?= "${@d.getVar('BPN').replace('mender-update-module-', '', 1)}"

# The settings and the unit, as paths in the source; empty if the module has none.
UPDATE_MODULE_SETTINGS ?= ""
UPDATE_MODULE_UNIT ?= ""

UPDATE_MODULE_DIR = "${datadir}/mender/modules/v3"
UPDATE_MODULE_SETTINGS_DIR = "${sysconfdir}/mender-modules"

FILES:${PN} += "${UPDATE_MODULE_DIR}/${UPDATE_MODULE} ${systemd_system_unitdir}"
# Recommended, not required: the client may be in the image by another name, from another layer than meta-mender-core.
RRECOMMENDS:${PN} += "${@bb.utils.contains('BBFILE_COLLECTIONS', 'mender', 'mender-update', '', d)}"
CONFFILES:${PN} += "${@d.expand('${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml') if d.getVar('UPDATE_MODULE_SETTINGS') else ''}"

# The client's own module of the same name, in the package that UPDATE_MODULES_SPLIT_FROM_CLIENT makes of it.
RCONFLICTS:${PN} += "mender-client-module-${UPDATE_MODULE}"
RREPLACES:${PN} += "mender-client-module-${UPDATE_MODULE}"

# The modules that some version of the client in meta-mender-core installs.
UPDATE_MODULES_OF_CLIENT = "deb directory docker rootfs-image rpm script single-file"

# nooelint: oelint.task.noanonpython - there is no other way to leave a recipe out
python() {
    name = d.getVar('UPDATE_MODULE')
    if 'mender' not in (d.getVar('BBFILE_COLLECTIONS') or '').split():
        return
    if name not in d.getVar('UPDATE_MODULES_OF_CLIENT').split():
        return
    if name not in (d.getVar('UPDATE_MODULES_SPLIT_FROM_CLIENT') or '').split():
        raise bb.parse.SkipRecipe(f'the Mender client, or an older version of it, has a module {name} too: '
                                  f'add it to UPDATE_MODULES_SPLIT_FROM_CLIENT in your distro or local.conf')
}

def update_module_settings(d, in_tables):
    """The lines of TOML that UPDATE_MODULE_CONFIG[MODULE.KEY] and, in_tables, UPDATE_MODULE_CONFIG[MODULE.TABLE.KEY] ask for."""
    import re
    tables = {}
    for flag, value in sorted((d.getVarFlags('UPDATE_MODULE_CONFIG') or {}).items()):
        module, _, key = flag.partition('.')
        table, _, key = key.rpartition('.')
        if module != d.getVar('UPDATE_MODULE') or bool(table) != in_tables:
            continue
        value = d.expand(value).strip()
        # What begins a value in TOML: a string, an array, a table, a number, true or false.
        if not key or not re.match(r"""["'\[{+0-9-]|(true|false)$""", value) or '\n' in value:
            bb.fatal(f'invalid UPDATE_MODULE_CONFIG[{flag}]: {value}: not a value of TOML in one line: '
                     f'a string needs quotes of its own, as in "\'/data/www\'"')
        tables.setdefault(table, []).append(f'{key} = {value}')
    lines = [f'[{table}]\n' * in_tables + '\n'.join(keys) for table, keys in sorted(tables.items())]
    return '\n'.join(['# Set by UPDATE_MODULE_CONFIG when the image was built.'] * bool(lines) + lines)

UPDATE_MODULE_CONFIG_KEYS = "${@update_module_settings(d, False)}"
UPDATE_MODULE_CONFIG_TABLES = "${@update_module_settings(d, True)}"
# A task's signature has the flags of a variable only by their value here.
UPDATE_MODULE_CONFIG_KEYS[vardepvalue] = "${UPDATE_MODULE_CONFIG_KEYS}"
UPDATE_MODULE_CONFIG_TABLES[vardepvalue] = "${UPDATE_MODULE_CONFIG_TABLES}"

# update_module_install EXECUTABLE: for do_install.
# nooelint: oelint.task.docstrings - a function, no task
update_module_install() {
    install -D -m 0755 "$1" "${D}${UPDATE_MODULE_DIR}/${UPDATE_MODULE}"
    if [ -n "${UPDATE_MODULE_SETTINGS}" ]; then
        install -D -m 0644 "${S}/${UPDATE_MODULE_SETTINGS}" "${D}${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml"
        update_module_configure "${D}${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml"
    fi
    # The systemd class is not inherited: its postinst restarts units when a package is upgraded on the device, which would run
    # the recovery in the middle of an update. The links that are shipped enable the unit.
    if [ -n "${UPDATE_MODULE_UNIT}" ] && ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        unit=$(basename "${UPDATE_MODULE_UNIT}")
        install -D -m 0644 "${S}/${UPDATE_MODULE_UNIT}" "${D}${systemd_system_unitdir}/$unit"
        for target in $(sed -n 's/^WantedBy=//p' "${S}/${UPDATE_MODULE_UNIT}"); do
            install -d "${D}${systemd_system_unitdir}/$target.wants"
            ln -s "../$unit" "${D}${systemd_system_unitdir}/$target.wants/$unit"
        done
    fi
}

# update_module_configure FILE: adds the settings of UPDATE_MODULE_CONFIG to FILE. Keys come first and tables last: what follows the
# head of a table in TOML belongs to it.
# nooelint: oelint.task.docstrings - a function, no task
update_module_configure() {
    cat >"${T}/settings-keys.toml" <<'END'
${UPDATE_MODULE_CONFIG_KEYS}
END
    cat >"${T}/settings-tables.toml" <<'END'
${UPDATE_MODULE_CONFIG_TABLES}
END
    if grep -q . "${T}/settings-keys.toml" "${T}/settings-tables.toml"; then
        cat "${T}/settings-keys.toml" "$1" "${T}/settings-tables.toml" >"${T}/settings.toml"
        install -m 0644 "${T}/settings.toml" "$1"
    fi
}
