//! The setups of a device: an engine, its image store, and a compose provider.

use std::fmt;

/// One setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// podman, and podman-compose.
    Podman,
    /// podman, and docker-compose, which uses podman's service.
    PodmanDockerCompose,
    /// docker, and docker-compose.
    Docker,
    /// docker with containerd's image store, the default from docker 29 on, and docker-compose.
    DockerContainerd,
}

impl Setup {
    /// The engine's program.
    pub fn engine(self) -> &'static str {
        match self {
            Setup::Podman | Setup::PodmanDockerCompose => "podman",
            Setup::Docker | Setup::DockerContainerd => "docker",
        }
    }

    /// Whether the engine is podman.
    pub fn is_podman(self) -> bool {
        self.engine() == "podman"
    }

    /// The units that are started at boot.
    pub(crate) fn units(self) -> &'static [&'static str] {
        match self {
            Setup::Podman => &[],
            Setup::PodmanDockerCompose => &["podman.socket"],
            Setup::Docker | Setup::DockerContainerd => &["docker.service"],
        }
    }

    /// Its files in `/etc`.
    pub(crate) fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // The host may have no controller for the number of processes.
            Setup::Podman => &[(
                "containers/containers.conf",
                "[containers]\npids_limit = 0\n[engine]\ncompose_providers = [\"/usr/bin/podman-compose\"]\n",
            )],
            Setup::PodmanDockerCompose => &[(
                "containers/containers.conf",
                "[containers]\npids_limit = 0\n[engine]\n\
                 compose_providers = [\"/usr/libexec/docker/cli-plugins/docker-compose\"]\n",
            )],
            Setup::Docker => &[],
            Setup::DockerContainerd => {
                &[("docker/daemon.json", "{\"features\": {\"containerd-snapshotter\": true}}\n")]
            }
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Setup::Podman => "podman",
            Setup::PodmanDockerCompose => "podman-docker-compose",
            Setup::Docker => "docker",
            Setup::DockerContainerd => "docker-containerd",
        })
    }
}
