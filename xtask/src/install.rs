//! `cargo xtask install [--prefix DIR]`: both programs where a package would put them, with their manual pages and
//! what makes bash, fish and zsh complete them.
//!
//! `onggi-oci` is also linked into `bin`, so that containerd, dockerd, Podman and CRI-O can name it as
//! their runtime.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    Outcome, build,
    process::{command, run_quietly},
};

/// Shell and where it looks for the completion of `onggi`.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/onggi"),
    ("fish", "share/fish/vendor_completions.d/onggi.fish"),
    ("zsh", "share/zsh/site-functions/_onggi"),
];

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
    pages(&installed.onggi, &prefix.join("share/man/man1"))?;
    COMPLETIONS.iter().try_for_each(|(shell, path)| completion(&installed.onggi, shell, &prefix.join(path)))
}

fn pages(onggi: &Path, dir: &Path) -> Outcome {
    run_quietly(command(onggi).args(["man", "--to"]).arg(dir))?;
    println!("installed {}/onggi*.1", dir.display());
    Ok(())
}

fn completion(onggi: &Path, shell: &str, path: &Path) -> Outcome {
    let out = command(onggi).args(["completion", shell]).output().map_err(|e| format!("{}: {e}", onggi.display()))?;
    if !out.status.success() {
        return Err(format!("`onggi completion {shell}`: {}", String::from_utf8_lossy(&out.stderr)));
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(|e| format!("{}: {e}", path.display()))?;
    fs::write(path, out.stdout).map_err(|e| format!("write {}: {e}", path.display()))?;
    println!("installed {}", path.display());
    Ok(())
}
