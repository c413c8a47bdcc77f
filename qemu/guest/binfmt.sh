# Registers an architecture with the host's kernel (binfmt_misc), which then runs its programs through qemu-user-static.
# Run as root on the host: sh -c THIS_SCRIPT sh ARCHITECTURE, with QEMU's name of the architecture.
# On a full Debian, systemd does this at boot. In a container or a micro-VM, nothing does.
set -eu
registry=/proc/sys/fs/binfmt_misc
[ -e $registry/register ] || mount -t binfmt_misc binfmt_misc $registry
[ -e $registry/qemu-$1 ] || cat /usr/lib/binfmt.d/qemu-$1.conf >$registry/register
