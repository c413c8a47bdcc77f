# Run on the host as root: sh -c THIS sh ARCHITECTURE, by QEMU's name. Lets the host run that architecture's
# programs, which systemd does at boot on a full Debian and nobody does in a container or a micro-VM.
set -eu
registry=/proc/sys/fs/binfmt_misc
[ -e $registry/register ] || mount -t binfmt_misc binfmt_misc $registry
[ -e $registry/qemu-$1 ] || cat /usr/lib/binfmt.d/qemu-$1.conf >$registry/register
