complete -c deb-artifact-gen -s n -l artifact-name -d 'Name of the artifact' -r
complete -c deb-artifact-gen -s t -l device-type -d 'Device type that the artifact is for; may be repeated' -r
complete -c deb-artifact-gen -s o -l output-path -d 'Writes the artifact to this file [default: NAME.mender]' -r -F
complete -c deb-artifact-gen -l software-name -d 'Second part of the key of the software version [default: the module\'s name]' -r
complete -c deb-artifact-gen -l software-version -d 'Software version [default: the artifact\'s name]' -r
complete -c deb-artifact-gen -l software-filesystem -d 'First part of the key of the software version [default: rootfs-image; for container the project]' -r
complete -c deb-artifact-gen -l meta-data -d 'Adds the keys of this JSON file to the meta-data, such as units and health' -r -F
complete -c deb-artifact-gen -l architecture -d 'Architecture of the devices: arm64, armhf, armv6, armel, amd64 or i386; may be repeated [default: that of the device types]' -r
complete -c deb-artifact-gen -l max-size -d 'Refuses a payload that is larger, such as 100M or 2G' -r
complete -c deb-artifact-gen -s T -l type -d 'Refused: the generator sets the payload type' -r
complete -c deb-artifact-gen -l remove -d 'Removes this package from the device; may be repeated' -r
complete -c deb-artifact-gen -l conffiles -d 'What happens to configuration files that were changed on the device [default: keep]' -r -f -a "keep\t''
replace\t''
default\t''"
complete -c deb-artifact-gen -l dry-run -d 'Checks everything, shows the command, and writes no artifact'
complete -c deb-artifact-gen -l json -d 'Writes the summary as JSON'
complete -c deb-artifact-gen -l allow-downgrade -d 'Allows a version that is older than the installed one'
complete -c deb-artifact-gen -l reboot -d 'Marks the update as one that needs a reboot: in managed mode the client then reboots the device'
complete -c deb-artifact-gen -s h -l help -d 'Print help (see more with \'--help\')'
complete -c deb-artifact-gen -s V -l version -d 'Print version'
