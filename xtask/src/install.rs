//! `cargo xtask install [--prefix DIR]`: both programs where a package would put them.
//!
//! `onggi-oci` is also linked into `bin`, so that containerd, dockerd, Podman and CRI-O can name it as
//! their runtime.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use crate::{Outcome, build};

/// Builds and installs.
pub(crate) fn main(args: &[String]) -> Outcome {
    let prefix = match args {
        [] => PathBuf::from("/usr/local"),
        [flag, dir] if flag == "--prefix" => PathBuf::from(dir),
        [one] if one.starts_with("--prefix=") => PathBuf::from(&one["--prefix=".len()..]),
        _ => return Err("usage: cargo xtask install [--prefix DIR]".to_owned()),
    };
    let installed = build::lay_out(&build::release()?, &prefix)?;
    let link = prefix.join("bin/onggi-oci");
    match fs::remove_file(&link) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("remove {}: {e}", link.display())),
    }
    symlink("../libexec/onggi/onggi-oci", &link).map_err(|e| format!("link {}: {e}", link.display()))?;
    println!("installed {}", installed.onggi.display());
    println!("installed {}", installed.onggi_oci.display());
    println!("linked    {}", link.display());
    Ok(())
}
