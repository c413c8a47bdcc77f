#!/bin/sh
# boot.sh TREE DIRECTORY: the device's process 1. Mounts the tree with an overlay for the device's writes, and the
# storage of the engines from an ext4 image, and becomes systemd.
set -eu
tree=$1 directory=$2
root=$directory/root
mount --make-rprivate /
mkdir -p "$root" "$directory/upper" "$directory/work"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$directory/upper,workdir=$directory/work" "$root"
cd "$root"
mkdir -p data
mount -o loop "$directory/data.img" data
for engine in docker containers containerd; do
    mkdir -p "data/$engine" "var/lib/$engine"
    mount --bind "data/$engine" "var/lib/$engine"
done
mkdir -p data/mender
[ -e data/mender/device_type ] || echo device_type=test-device >data/mender/device_type
[ ! -e etc/data-is-mounted-by-systemd ] || umount data
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/shm dev/pts dev/net
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
node() { mknod -m 666 "dev/$1" c "$2" "$3"; }
node null 1 3
node zero 1 5
node full 1 7
node random 1 8
node urandom 1 9
node tty 5 0
node fuse 10 229
node console 5 1
node net/tun 10 200
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
exec env -i container=mender-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
