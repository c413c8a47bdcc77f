complete -c container-artifact-gen -s n -l artifact-name -d 'Name of the artifact' -r
complete -c container-artifact-gen -s t -l device-type -d 'Device type that the artifact is for; may be repeated' -r
complete -c container-artifact-gen -s o -l output-path -d 'Writes the artifact to this file [default: NAME.mender]' -r -F
complete -c container-artifact-gen -l software-name -d 'Second part of the key of the software version [default: the module\'s name]' -r
complete -c container-artifact-gen -l software-version -d 'Software version [default: the artifact\'s name]' -r
complete -c container-artifact-gen -l software-filesystem -d 'First part of the key of the software version [default: rootfs-image; for container the project]' -r
complete -c container-artifact-gen -l meta-data -d 'Adds the keys of this JSON file to the meta-data, such as units and health' -r -F
complete -c container-artifact-gen -l architecture -d 'Architecture of the devices: arm64, armhf, armv6, armel, amd64 or i386; may be repeated [default: that of the device types]' -r
complete -c container-artifact-gen -l max-size -d 'Refuses a payload that is larger, such as 100M or 2G' -r
complete -c container-artifact-gen -s T -l type -d 'Refused: the generator sets the payload type' -r
complete -c container-artifact-gen -l project -d 'Name of the project: a to z, digits and hyphens' -r
complete -c container-artifact-gen -l run -d 'Runs the image as one service; with =FILE, the services of this JSON file: the table run of the meta-data' -r -F
complete -c container-artifact-gen -l compose -d 'Compose file; may be repeated' -r -F
complete -c container-artifact-gen -l profile -d 'Active profile of the compose files; may be repeated' -r
complete -c container-artifact-gen -l quadlet -d 'Quadlet file for podman: .container, .pod, .volume or .network; may be repeated' -r -F
complete -c container-artifact-gen -l archive -d 'Files beside the compose or quadlet files: a tar archive, or a directory, whose content is packed without its name' -r -F
complete -c container-artifact-gen -l service -d 'With --run: name of the service [default: the last part of the image\'s name]' -r
complete -c container-artifact-gen -l publish -d 'With --run: port that is published, such as 80:8080; may be repeated' -r
complete -c container-artifact-gen -l volume -d 'With --run: volume, such as shop-data:/data; may be repeated' -r
complete -c container-artifact-gen -l env -d 'With --run: environment variable; may be repeated' -r
complete -c container-artifact-gen -l network -d 'With --run: network' -r
complete -c container-artifact-gen -l option -d 'With --run: other option of the engine\'s run, such as --option=--read-only; may be repeated' -r
complete -c container-artifact-gen -l host-path -d 'Path of the device that the project may use; may be repeated. It includes the paths below it' -r
complete -c container-artifact-gen -l engine -d 'Engine that has the images [default: podman, else docker]' -r -f -a "podman\t'podman'
docker\t'docker'"
complete -c container-artifact-gen -l device-engine -d 'Engine of the devices: quadlets need podman' -r -f -a "podman\t'podman'
docker\t'docker'"
complete -c container-artifact-gen -l dry-run -d 'Checks everything, shows the command, and writes no artifact'
complete -c container-artifact-gen -l json -d 'Writes the summary as JSON'
complete -c container-artifact-gen -s h -l help -d 'Print help (see more with \'--help\')'
complete -c container-artifact-gen -s V -l version -d 'Print version'
