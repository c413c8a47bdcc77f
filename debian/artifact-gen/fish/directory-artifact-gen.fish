complete -c directory-artifact-gen -s n -l artifact-name -d 'Name of the artifact' -r
complete -c directory-artifact-gen -s t -l device-type -d 'Device type that the artifact is for; may be repeated' -r
complete -c directory-artifact-gen -s o -l output-path -d 'Writes the artifact to this file [default: NAME.mender]' -r -F
complete -c directory-artifact-gen -l software-name -d 'Second part of the key of the software version [default: the module\'s name]' -r
complete -c directory-artifact-gen -l software-version -d 'Software version [default: the artifact\'s name]' -r
complete -c directory-artifact-gen -l software-filesystem -d 'First part of the key of the software version [default: rootfs-image; for container the project]' -r
complete -c directory-artifact-gen -l meta-data -d 'Adds the keys of this JSON file to the meta-data, such as units and health' -r -F
complete -c directory-artifact-gen -l architecture -d 'Architecture of the devices: arm64, armhf, armv6, armel, amd64 or i386; may be repeated [default: that of the device types]' -r
complete -c directory-artifact-gen -l max-size -d 'Refuses a payload that is larger, such as 100M or 2G' -r
complete -c directory-artifact-gen -s T -l type -d 'Refused: the generator sets the payload type' -r
complete -c directory-artifact-gen -s d -l dest-dir -d 'Directory on the device that is replaced, an absolute path' -r -F
complete -c directory-artifact-gen -l keep -d 'Path below DEST_DIR that the device keeps, such as \'uploads/**\'; may be repeated' -r
complete -c directory-artifact-gen -l owner -d 'Owner of all files, with :GROUP also their group, names or numbers [default: the numbers of the files]' -r
complete -c directory-artifact-gen -l mtime -d 'Modification time of all files, such as 2026-11-27 or @0 [default: that of each file, at most SOURCE_DATE_EPOCH]' -r
complete -c directory-artifact-gen -l dry-run -d 'Checks everything, shows the command, and writes no artifact'
complete -c directory-artifact-gen -l json -d 'Writes the summary as JSON'
complete -c directory-artifact-gen -l xattrs -d 'Archives extended attributes'
complete -c directory-artifact-gen -l acls -d 'Archives access control lists'
complete -c directory-artifact-gen -l sparse -d 'Archives holes in files as holes. The archive is another one at each run, and Mender\'s module needs GNU tar'
complete -c directory-artifact-gen -s h -l help -d 'Print help (see more with \'--help\')'
complete -c directory-artifact-gen -s V -l version -d 'Print version'
