//! Test packages of "another" client: Debian's client 3.4 with the commands, packages and services of client 4. They
//! show that the scenarios run with a client that has other names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::apt::Root;
use host::status::Step;
use mender_update_module_test::debian::Package;
use xshell::{Shell, cmd};

/// The Debian release with client 3.4, which is that of the images.
const RELEASE: &str = "trixie";

/// The control file of the package with the command.
const UPDATE: &str = "Package: mender-update\nVersion: 4.0.0+test\nMaintainer: Test <test@example.org>\n\
    Conflicts: mender-client\nReplaces: mender-client\nDescription: client 3.4 with the command of client 4\n";

/// The maintainer script that restarts the service after an upgrade, as those of real packages do.
const POSTINST: &str = "#!/bin/sh\nset -e\n[ -z \"$2\" ] || systemctl restart mender-updated.service || true\n";

/// The service of the command.
const UPDATE_SERVICE: &str = "[Unit]\nDescription=Client 3.4 as mender-update\nAfter=mender-authd.service\n\n\
    [Service]\nExecStart=/usr/bin/mender-update daemon\nRestart=on-abort\n\n[Install]\nWantedBy=multi-user.target\n";

/// The service of the authentication in client 4, which client 3.4 does itself.
const AUTH_SERVICE: &str = "[Unit]\nDescription=Nothing, as mender-auth\n\n\
    [Service]\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

/// The directory of the services.
const SERVICES: &str = "/usr/lib/systemd/system";

/// Writes the packages for `architecture` (Debian's name) to `directory`.
pub fn write(sh: &Shell, step: &Step, directory: &Path, architecture: &str) -> Result<()> {
    let apt = Root::new(sh, step, &directory.join("apt"), RELEASE, architecture)?;
    let debs = apt.download(step, &["mender-client"])?;
    let deb = debs.first().context("apt-get downloaded no package of mender-client")?;
    update(sh, deb, directory, architecture)?;
    let auth = Package::new("mender-auth", "4.0.0+test")
        .file(&format!("{SERVICES}/mender-authd.service"), AUTH_SERVICE)
        .build()?;
    sh.write_file(directory.join("mender-auth.deb"), auth).context("writing mender-auth.deb failed")
}

/// Packs the files of `deb` with other names.
fn update(sh: &Shell, deb: &Path, directory: &Path, architecture: &str) -> Result<()> {
    let tree = directory.join("mender-update");
    cmd!(sh, "dpkg-deb --raw-extract {deb} {tree}").quiet().run()?;
    let depends = cmd!(sh, "dpkg-deb --field {deb} Depends").quiet().read()?;
    let bin = tree.join("usr/bin");
    fs::rename(bin.join("mender"), bin.join("mender-update")).context("renaming the command failed")?;
    cmd!(sh, "find {tree} -name mender-client.service -delete").quiet().run()?;
    sh.write_file(tree.join(SERVICES.trim_start_matches('/')).join("mender-updated.service"), UPDATE_SERVICE)?;
    // The maintainer scripts and the checksums have the previous names.
    sh.remove_path(tree.join("DEBIAN"))?;
    let postinst = tree.join("DEBIAN/postinst");
    sh.write_file(&postinst, POSTINST)?;
    cmd!(sh, "chmod 755 {postinst}").quiet().run()?;
    let control = format!("{UPDATE}Architecture: {architecture}\nDepends: {depends}\n");
    sh.write_file(tree.join("DEBIAN/control"), control)?;
    let packed = directory.join("mender-update.deb");
    cmd!(sh, "dpkg-deb --root-owner-group -Zgzip --build {tree} {packed}").quiet().ignore_stdout().run()?;
    Ok(())
}
