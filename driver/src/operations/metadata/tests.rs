use super::*;

/// What one byte of an image is: nothing, a byte at an address, or a byte somewhere.
type Byte = Option<Option<u64>>;

/// Every image of so many bytes, each of them nothing, at one of two addresses, or somewhere.
/// Two addresses at neighbouring offsets may or may not be one extent.
fn images(length: u32) -> impl Iterator<Item = Vec<Byte>> + Clone {
    (0..4_u64.pow(length)).map(move |number| {
        (0..u64::from(length))
            .map(|offset| match number >> (2 * offset) & 3 {
                0 => None,
                1 => Some(Some(100 + offset)),
                2 => Some(Some(200 + offset)),
                _ => Some(None),
            })
            .collect()
    })
}

/// The pieces as a file system may report them: joined where they can be, or each for itself.
fn pieces(image: &[Byte], join: bool) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (offset, byte) in (0..).zip(image) {
        let Some(byte) = byte else { continue };
        let place = byte.map_or(Place::Unknown, Place::At);
        match pieces.last_mut() {
            Some(last) if join && last.range.end == offset && last.place(offset) == place => {
                last.range.end += 1;
            }
            _ => pieces.push(Piece {
                range: Range {
                    start: offset,
                    end: offset + 1,
                },
                place,
            }),
        }
    }
    pieces
}

fn differences(base: &[Piece], target: &[Piece], start: u64, size: u64) -> Vec<Range> {
    let (base, target) = (base.iter().copied(), target.iter().copied());
    Differences::new(base.map(Ok), target.map(Ok), start, size)
        .collect::<io::Result<_>>()
        .unwrap()
}

/// Byte by byte, from what was said of the images.
fn truth(base: &[Byte], target: &[Byte], start: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (offset, target) in (0..).zip(target).skip(usize::try_from(start).unwrap()) {
        let base = base
            .get(usize::try_from(offset).unwrap())
            .copied()
            .flatten();
        let same = match (base, *target) {
            (None, None) => true,
            (Some(Some(base)), Some(Some(target))) => base == target,
            _ => false,
        };
        match ranges.last_mut() {
            _ if same => {}
            Some(last) if last.end == offset => last.end += 1,
            _ => ranges.push(Range {
                start: offset,
                end: offset + 1,
            }),
        }
    }
    ranges
}

#[test]
fn every_pair_of_small_images_differs_where_its_bytes_do() {
    for base in images(4) {
        for target in images(4) {
            for (start, join) in [(0, true), (0, false), (1, true), (3, false), (4, true)] {
                let found = differences(&pieces(&base, join), &pieces(&target, true), start, 4);
                assert_eq!(
                    found,
                    truth(&base, &target, start),
                    "{base:?} {target:?} {start}"
                );
            }
        }
    }
}

#[test]
fn images_of_different_sizes_differ_in_what_one_has_and_the_other_not() {
    for base in images(2).chain(images(5)) {
        for target in images(3) {
            let found = differences(&pieces(&base, true), &pieces(&target, true), 0, 3);
            assert_eq!(found, truth(&base, &target, 0), "{base:?} {target:?}");
        }
    }
}

#[test]
fn what_is_told_in_parts_is_what_is_told_at_once() {
    for base in images(4) {
        for target in images(4) {
            let (base, target) = (pieces(&base, false), pieces(&target, true));
            let all = differences(&base, &target, 0, 4);
            let mut parts = Vec::new();
            let mut told = 0;
            while let Some(first) = differences(&base, &target, told, 4).first() {
                told = first.end;
                parts.push(*first);
            }
            assert_eq!(parts, all);
        }
    }
}

#[test]
fn an_error_ends_the_answer_and_is_told() {
    let broken = std::iter::once(Err(io::Error::other("broken")));
    let mut differences = Differences::new(std::iter::empty(), broken, 0, 4);
    assert!(differences.next().unwrap().is_err());
    assert!(differences.next().is_none());
}
