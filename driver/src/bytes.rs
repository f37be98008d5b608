//! Amounts of bytes as people write and read them.

use std::fmt;

/// A MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// A GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// The suffixes of Kubernetes' quantities, each with its factor.
const SUFFIXES: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", MIB),
    ("Gi", GIB),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Reads a whole number of bytes with a suffix of Kubernetes: `20Gi`, `500M`, `4096`.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1));
    let number = digits
        .parse::<u64>()
        .ok()
        .filter(|_| !digits.starts_with('+'));
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size; write one like 20Gi, 500M or 1073741824"))
}

/// Bytes, shown in the largest binary unit that leaves at least one, to two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1_u64 << 40, "TiB"),
            (GIB, "GiB"),
            (MIB, "MiB"),
            (1 << 10, "KiB"),
        ];
        let Some((unit, name)) = units.into_iter().find(|(unit, _)| self.0 >= *unit) else {
            return write!(f, "{} bytes", self.0);
        };
        // Rounded down: what is said to be there, is there.
        let hundredths = u128::from(self.0) * 100 / u128::from(unit);
        match (hundredths / 100, hundredths % 100) {
            (whole, 0) => write!(f, "{whole} {name}"),
            (whole, rest) => write!(f, "{whole}.{rest:02} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_kubernetes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("20Gi", 20 * GIB),
            ("5M", 5_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "Gi",
            "-1",
            "+1Gi",
            "1.5Gi",
            "20 Gi",
            "20GiB",
            "99999999Ti",
        ] {
            assert!(
                parse(text).unwrap_err().contains("write one like"),
                "{text}"
            );
        }
    }

    #[test]
    fn amounts_are_shown_rounded_down() {
        let shown =
            [0, 1023, 1024, 1536 * MIB, 20 * GIB, 20 * GIB - 1].map(|n| Bytes(n).to_string());
        assert_eq!(
            shown,
            [
                "0 bytes",
                "1023 bytes",
                "1 KiB",
                "1.50 GiB",
                "20 GiB",
                "19.99 GiB"
            ]
        );
    }
}
