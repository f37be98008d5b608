//! Which shared libraries a program needs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The paths of the libraries and of the loader, as the program's loader looks for them. Empty for
/// a static program.
pub(super) fn of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd cannot be run")?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        return parse(&stdout).with_context(|| program.display().to_string());
    }
    if format!("{stdout}{stderr}").contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    bail!("ldd {}: {}", program.display(), stderr.trim());
}

/// Lines are `name => /path (address)`, `/path/of/the/loader (address)`, or name the kernel's own
/// library, which has no path.
fn parse(listed: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in listed.lines() {
        if line.trim_end().ends_with("=> not found") {
            bail!("a library is missing: {}", line.trim());
        }
        paths.extend(
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(str::to_owned),
        );
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_and_the_loader() {
        let listed = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x2)\n\tstatically linked\n";
        assert_eq!(
            parse(listed).unwrap(),
            ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }

    #[test]
    fn a_missing_library_is_an_error() {
        assert!(parse("\tlibfoo.so.1 => not found\n").is_err());
    }

    #[test]
    fn a_static_program_needs_none_and_a_dynamic_one_its_loader() {
        assert_eq!(of(Path::new("/bin/busybox")).unwrap(), Vec::<String>::new());
        let needed = of(Path::new("/bin/ls")).unwrap();
        assert!(
            needed.iter().any(|path| path.contains("ld-linux")),
            "{needed:?}"
        );
    }
}
