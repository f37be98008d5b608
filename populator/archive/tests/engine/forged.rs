//! Archives by hand, for what no program writes.

use tar::{EntryType, Header};

/// An archive by hand, header for header.
#[derive(Default)]
pub struct Forged(pub Vec<u8>);

impl Forged {
    /// Adds an entry whose name and link are not looked at by anybody.
    pub fn entry(mut self, kind: EntryType, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        let mut header = forged_header(kind, name, link);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a header without data, after `alter` has had it; its sum is right.
    pub fn altered(mut self, kind: EntryType, name: &[u8], alter: impl Fn(&mut Header)) -> Self {
        let mut header = forged_header(kind, name, b"");
        header.set_size(0);
        alter(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Adds bytes as they are, padded to a block.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), b"", data.as_bytes())
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    pub fn hard(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }

    pub fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name.as_bytes(), b"", b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            // The length counts its own digits.
            let mut length = rest.len();
            while length.to_string().len() + rest.len() != length {
                length += 1;
            }
            data.extend([length.to_string(), rest]);
        }
        self.entry(EntryType::XHeader, b"pax", b"", data.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A header that `set_size` and `set_cksum` complete.
pub fn forged_header(kind: EntryType, name: &[u8], link: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header
}
