//! Container images without Docker: an archive of one layer, as `docker save` writes it and
//! `ctr images import` reads it.

mod libraries;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::tools::{Tools, product};

/// Host programs that a driver calls, as far as the machine has them.
const FILE_SYSTEM_PROGRAMS: [&str; 12] = [
    "mkfs.ext4",
    "mkfs.xfs",
    "e2fsck",
    "resize2fs",
    "tune2fs",
    "dumpe2fs",
    "xfs_repair",
    "xfs_growfs",
    "xfs_db",
    "xfs_io",
    "blkid",
    "fsck",
];
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// An image in an archive file, which goes when this value does.
#[derive(Debug)]
pub struct Image {
    name: String,
    archive: PathBuf,
    _folder: TempDir,
}

impl Image {
    /// An image to be called `name`.
    pub fn builder(name: &str) -> ImageBuilder {
        ImageBuilder {
            name: name.to_owned(),
            contents: BTreeMap::new(),
            entrypoint: Vec::new(),
        }
    }

    /// The name under which manifests find it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The archive.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// What holds a pod's namespaces.
    pub fn pause(name: &str, tools: &Tools) -> Result<Self> {
        Self::builder(name)
            .file(&tools.pause(), "/pause")
            .entrypoint(&["/pause"])
            .build()
    }

    /// A shell and the usual commands, from Debian's busybox-static.
    pub fn busybox(name: &str) -> Result<Self> {
        Self::with_shell(name)?.entrypoint(&["/bin/sh"]).build()
    }

    /// [`Image::busybox`] with the machine's own of these programs in place of busybox's.
    pub fn busybox_with(name: &str, programs: &[&str]) -> Result<Self> {
        Self::with_programs(name, programs)?
            .entrypoint(&["/bin/sh"])
            .build()
    }

    fn with_programs(name: &str, programs: &[&str]) -> Result<ImageBuilder> {
        let mut image = Self::with_shell(name)?;
        for name in programs {
            let path = program(name).with_context(|| format!("{name} is not installed"))?;
            image = image.program_at(&path, &format!("/bin/{name}"))?;
        }
        Ok(image)
    }

    /// A program, and the machine's own of `others`, which it runs, over busybox.
    pub fn program_with(name: &str, program: &Path, others: &[&str]) -> Result<Self> {
        let inside = file_name(program)?;
        Self::with_programs(name, others)?
            .program_at(program, &inside)?
            .entrypoint(&[&inside])
            .build()
    }

    /// The program that pods of Kubernetes' end-to-end tests run, with a shell.
    pub fn agnhost(name: &str, tools: &Tools) -> Result<Self> {
        Self::with_shell(name)?
            .file(&tools.built("agnhost"), "/agnhost")
            .entrypoint(&["/agnhost"])
            .build()
    }

    fn with_shell(name: &str) -> Result<ImageBuilder> {
        let busybox = program("busybox").context("install the package busybox-static")?;
        let applets = crate::command::run_program("busybox", &["--list"])?;
        let links = applets
            .lines()
            .filter(|applet| *applet != "busybox")
            .fold(Self::builder(name), |image, applet| {
                image.link(&format!("/bin/{applet}"), "busybox")
            });
        Ok(links.file(&busybox, "/bin/busybox"))
    }

    /// One program with its libraries as `/bin/<its file name>`, the machine's certificate
    /// authorities, and no shell.
    pub fn program(name: &str, program: &Path) -> Result<Self> {
        Self::with_program(name, program)?.build()
    }

    /// [`Image::program`] for the CSI driver: with the file system programs that it calls.
    pub fn driver(name: &str) -> Result<Self> {
        let mut image = Self::with_program(name, &product("driver")?)?;
        for path in FILE_SYSTEM_PROGRAMS.into_iter().filter_map(program) {
            let inside = path.to_string_lossy().into_owned();
            image = image.program_at(&path, &inside)?;
        }
        let defaults = Path::new("/etc/mke2fs.conf");
        if defaults.exists() {
            image = image.file(defaults, "/etc/mke2fs.conf");
        }
        image.build()
    }

    /// [`Image::program`] for the populator.
    pub fn populator(name: &str) -> Result<Self> {
        Self::program(name, &product("populator")?)
    }

    fn with_program(name: &str, program: &Path) -> Result<ImageBuilder> {
        let inside = file_name(program)?;
        let mut image = Self::builder(name)
            .program_at(program, &inside)?
            .entrypoint(&[&inside]);
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if authorities.exists() {
            image = image.file(authorities, "/etc/ssl/certs/ca-certificates.crt");
        }
        Ok(image)
    }
}

/// Collects what goes into an [`Image`].
#[derive(Debug)]
pub struct ImageBuilder {
    name: String,
    contents: BTreeMap<String, Content>,
    entrypoint: Vec<String>,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Text(String),
    Link(String),
}

impl ImageBuilder {
    /// A file of the machine, with its mode, at the absolute path `inside`.
    #[must_use]
    pub fn file(self, path: &Path, inside: &str) -> Self {
        self.content(inside, Content::File(path.to_owned()))
    }

    /// [`ImageBuilder::file`] for a program: with the shared libraries and the loader it asks for.
    pub fn program_at(mut self, path: &Path, inside: &str) -> Result<Self> {
        for library in libraries::of(path)? {
            self = self.file(Path::new(&library), &library);
        }
        Ok(self.file(path, inside))
    }

    /// A file with this text.
    #[must_use]
    pub fn text(self, inside: &str, text: &str) -> Self {
        self.content(inside, Content::Text(text.to_owned()))
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, inside: &str, target: &str) -> Self {
        self.content(inside, Content::Link(target.to_owned()))
    }

    /// What runs if the pod names no command.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    fn content(mut self, inside: &str, content: Content) -> Self {
        self.contents
            .insert(inside.trim_start_matches('/').to_owned(), content);
        self
    }

    /// Writes the archive.
    pub fn build(self) -> Result<Image> {
        let folder = tempfile::tempdir().context("a folder for an image")?;
        let (layer, digest) = self.write_layer(&folder)?;
        let configuration = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [self.name],
            "Layers": ["layer.tar"],
        }]);
        let archive = folder.path().join("image.tar");
        let mut outer = Builder::new(BufWriter::new(File::create(&archive)?));
        for (name, document) in [("config.json", configuration), ("manifest.json", manifest)] {
            append_text(&mut outer, name, &document.to_string())?;
        }
        outer.append_file("layer.tar", &mut File::open(&layer)?)?;
        outer.into_inner()?.flush()?;
        std::fs::remove_file(&layer)?;
        Ok(Image {
            name: self.name,
            archive,
            _folder: folder,
        })
    }

    fn write_layer(&self, folder: &TempDir) -> Result<(PathBuf, String)> {
        let path = folder.path().join("layer.tar");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let mut layer = Builder::new(BufWriter::new(file));
        let mut header = header(EntryType::Directory, 0o1777, 0);
        layer.append_data(&mut header, "tmp/", std::io::empty())?;
        append_text(&mut layer, "etc/passwd", "root:x:0:0:root:/:/bin/sh\n")?;
        append_text(&mut layer, "etc/group", "root:x:0:\n")?;
        for (inside, content) in &self.contents {
            append(&mut layer, inside, content).with_context(|| format!("{inside} of an image"))?;
        }
        let mut file = layer.into_inner()?.into_inner()?;
        file.rewind()?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
        }
        Ok((path, hex::encode(digest.finalize())))
    }
}

fn append<W: Write>(layer: &mut Builder<W>, inside: &str, content: &Content) -> Result<()> {
    match content {
        Content::File(path) => {
            use std::os::unix::fs::PermissionsExt as _;
            let file = File::open(path).with_context(|| path.display().to_string())?;
            let metadata = file.metadata()?;
            let mode = metadata.permissions().mode() & 0o7777;
            let mut header = header(EntryType::Regular, mode, metadata.len());
            layer.append_data(&mut header, inside, file)?;
        }
        Content::Text(text) => append_text(layer, inside, text)?,
        Content::Link(target) => {
            layer.append_link(&mut header(EntryType::Symlink, 0o777, 0), inside, target)?;
        }
    }
    Ok(())
}

fn append_text<W: Write>(archive: &mut Builder<W>, name: &str, text: &str) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
    Ok(archive.append_data(&mut header, name, text.as_bytes())?)
}

/// With root as owner and no time, so that equal contents give an equal digest.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Where a program lies in an image.
fn file_name(program: &Path) -> Result<String> {
    let file = program.file_name().context("a program has a name")?;
    Ok(format!("/bin/{}", file.display()))
}

fn program(name: &str) -> Option<PathBuf> {
    PROGRAM_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
