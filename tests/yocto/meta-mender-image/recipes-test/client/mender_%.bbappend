# The client is packaged as meta-mender packages it, but its executables are stand-ins: to compile them, BitBake would
# have to fetch the source of six libraries, and build boost and others. Update Modules, scripts, units and settings
# are those of the client.

python() {
    source = d.getVar('SRC_URI', False).replace('gitsm://', 'git://')
    d.setVar('SRC_URI', source)
    # The licences of the libraries, which are not fetched.
    licences = d.getVar('LIC_FILES_CHKSUM').split()
    d.setVar('LIC_FILES_CHKSUM', ' '.join(file for file in licences if 'vendor/' not in file))
}
_MENDER_DISABLE_STRICT_LICENSE_CHECKING = "1"

# CMake's target install-bin, which is the only one that needs compiled executables.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"
SRC_URI:append:class-target = " file://executables.cmake"
EXTRA_OECMAKE:append:class-target = " -DMENDER_NO_BUILD=1 -DCMAKE_PROJECT_mender_INCLUDE=${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/executables.cmake"
# The compiler has its own sysroot, which CMake replaces by the one of the recipe.
EXTRA_OECMAKE:append:class-target = " -DCMAKE_C_COMPILER_WORKS=1 -DCMAKE_CXX_COMPILER_WORKS=1"

# A recipe of its own, from another repository.
PACKAGECONFIG:remove = "version-inventory-script"
