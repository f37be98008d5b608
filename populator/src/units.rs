//! Bytes, rates and times as people read them, and Kubernetes quantities.

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes: `512 B`, `1.2 GiB`, `212 MiB`. One decimal below 100, none above.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded, in integers: floats would print 1024.0 KiB for 1 MiB less one.
    let mut scale: u128 = 1024;
    for (index, unit) in UNITS.iter().enumerate() {
        let tenths = (u128::from(bytes) * 10 + scale / 2) / scale;
        if tenths < 10240 || index + 1 == UNITS.len() {
            return match (tenths / 10, tenths % 10) {
                (whole, 0) => format!("{whole} {unit}"),
                (whole, tenth) if whole < 100 => format!("{whole}.{tenth} {unit}"),
                (whole, tenth) => format!("{} {unit}", whole + u128::from(tenth >= 5)),
            };
        }
        scale *= 1024;
    }
    format!("{bytes} B")
}

/// Bytes a second: `212 MiB/s`.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// A length of time in whole seconds: `0s`, `42s`, `1m20s`, `2h5m`, `3d4h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |large: u64, large_unit: char, small: u64, small_unit: char| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => pair(seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => pair(seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => pair(seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
    }
}

/// The bytes of a Kubernetes quantity (`50Gi`, `1500M`, `1e9`, `0.5Gi`, `100m`), rounded up; `None`
/// where it is not one, is negative, or does not fit.
///
/// Source: `k8s.io/apimachinery/pkg/api/resource`, "Quantity".
pub fn quantity(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (multiply, divide): (u128, u128) = match suffix {
        "" => (1, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10u128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits
        .checked_mul(multiply)?
        .div_ceil(shift.checked_mul(divide)?);
    u64::try_from(value).ok()
}

/// A number of bytes as a Kubernetes quantity, in the largest unit that is exact: `50Gi`, `300Mi`.
pub fn to_quantity(bytes: u64) -> String {
    let exact = UNITS
        .iter()
        .zip(1u32..)
        .take_while(|(_, power)| bytes > 0 && bytes.trailing_zeros() >= 10 * power)
        .last();
    match exact {
        Some((unit, power)) => format!("{}{}", bytes >> (10 * power), unit.trim_end_matches('B')),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_288_490_189, "1.2 GiB"),
            (53_687_091_200, "50 GiB"),
            (212 << 20, "212 MiB"),
            ((212 << 20) + (600 << 10), "213 MiB"),
            ((1 << 20) - 1, "1 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
        assert_eq!(rate(212 << 20), "212 MiB/s");
    }

    #[test]
    fn durations_for_people() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (80, "1m20s"),
            (7500, "2h5m"),
            (7200, "2h"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn quantities_are_exact() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1Ki"),
            (1025, "1025"),
            (300 << 20, "300Mi"),
            (50 << 30, "50Gi"),
            (1536 << 20, "1536Mi"),
        ] {
            assert_eq!(to_quantity(bytes), text);
            assert_eq!(quantity(text), Some(bytes));
        }
    }

    #[test]
    fn quantities() {
        for (text, number) in [
            ("50Gi", Some(50 << 30)),
            ("0.5Gi", Some(512 << 20)),
            ("1500M", Some(1_500_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("1E3", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("100m", Some(1)),
            ("1.5", Some(2)),
            ("+7", Some(7)),
            ("123", Some(123)),
            ("", None),
            (".", None),
            ("Gi", None),
            ("-1", None),
            ("12Q", None),
            ("99999999Ei", None),
        ] {
            assert_eq!(quantity(text), number, "{text}");
        }
    }
}
