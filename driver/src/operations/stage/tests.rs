use super::*;

#[test]
fn every_state_of_things_leads_to_the_end() {
    use Geometry::{Right, Wrong};
    for (device, formatted, written, step) in [
        (None, false, false, Step::Attach),
        (None, false, true, Step::Empty),
        (None, true, true, Step::Attach),
        (Some(Right), false, false, Step::Format),
        (Some(Right), false, true, Step::Detach),
        (Some(Right), true, true, Step::Show),
        (Some(Right), true, false, Step::Show),
        (Some(Wrong), false, false, Step::Detach),
        (Some(Wrong), true, true, Step::Detach),
    ] {
        let observed = Observed {
            device,
            formatted,
            written,
            staged: false,
        };
        assert_eq!(next(observed), step, "{observed:?}");
        let staged = Observed {
            staged: true,
            ..observed
        };
        assert_eq!(next(staged), Step::Done, "{staged:?}");
    }
}

#[test]
fn the_longest_way_has_fewer_steps_than_are_allowed() {
    let mut observed = Observed {
        device: Some(Geometry::Wrong),
        formatted: false,
        written: true,
        staged: false,
    };
    let mut steps = 0;
    loop {
        match next(observed) {
            Step::Detach => observed.device = None,
            Step::Empty => observed.written = false,
            Step::Attach => observed.device = Some(Geometry::Right),
            Step::Format => (observed.formatted, observed.written) = (true, true),
            Step::Show => observed.staged = true,
            Step::Done => break,
        }
        steps += 1;
        assert!(steps < MOST_STEPS, "{observed:?}");
    }
}

#[test]
fn a_formatted_image_is_never_emptied_or_formatted() {
    for device in [None, Some(Geometry::Right), Some(Geometry::Wrong)] {
        for (written, staged) in [(false, false), (false, true), (true, false), (true, true)] {
            let step = next(Observed {
                device,
                formatted: true,
                written,
                staged,
            });
            assert!(!matches!(step, Step::Empty | Step::Format), "{step:?}");
        }
    }
}
