//! How restores end without a volume, and what holds them up on the way.

use populator::controller::ending::{
    Ending, EndingDiscriminants, Hindrance, HindranceDiscriminants, Sidecar,
};
use populator::controller::{prime, report};

use super::{BY_ITSELF, MENDED, OF_THE_CLAIM, Row, complete, text};

pub fn endings() -> Vec<Row> {
    let all = vec![
        Ending::BoundElsewhere {
            volume: text("VOLUME"),
            backup: text("BACKUP"),
        },
        Ending::VolumeNameTaken,
        Ending::VolumeLost {
            volume: text("VOLUME"),
        },
        unfillable(prime::Unfit::Found),
        unfillable(prime::Unfit::OtherDriver),
        Ending::VolumeTooSmall {
            driver: text("DRIVER"),
            made: 1 << 20,
            required: 1 << 30,
        },
        Ending::AnswerInvalid,
        Ending::AttemptsSpent {
            attempts: 5,
            last: text("WHY"),
        },
        Ending::DeadlinePassed {
            seconds: 3600,
            last: None,
        },
        Ending::BudgetSpent {
            attempts: 9,
            fetched: 4 << 30,
            size: 1 << 30,
            last: Some(text("WHY")),
        },
    ];
    complete::<_, EndingDiscriminants>(&all);
    let row = |it: &Ending| Row {
        reason: it.reason().to_owned(),
        words: it.to_string(),
        then: match it {
            Ending::BoundElsewhere { .. } => "over",
            _ if report::is_of_the_claim(it.reason()) => OF_THE_CLAIM,
            _ => MENDED,
        },
    };
    all.iter().map(row).collect()
}

fn unfillable(unfit: prime::Unfit) -> Ending {
    Ending::Unfillable {
        volume: text("VOLUME"),
        unfit,
    }
}

pub fn hindrances() -> Vec<Row> {
    let driver = || text("DRIVER");
    let said = || text("WHAT IT SAYS");
    let all = vec![
        Hindrance::Refused { why: text("WHY") },
        Hindrance::Complaint {
            sidecar: Sidecar::Provisioner,
            driver: driver(),
            said: said(),
        },
        Hindrance::Complaint {
            sidecar: Sidecar::Attacher,
            driver: driver(),
            said: said(),
        },
        Hindrance::Silent {
            sidecar: Sidecar::Provisioner,
            driver: driver(),
            seconds: 60,
        },
        Hindrance::Detached,
        Hindrance::NodeFull {
            driver: driver(),
            node: text("NODE"),
        },
        Hindrance::AgentSilent { node: text("NODE") },
        Hindrance::RestoreKept,
        Hindrance::VolumeKept {
            node: text("NODE"),
            said: said(),
        },
    ];
    complete::<_, HindranceDiscriminants>(&all);
    let row = |it: &Hindrance| Row {
        reason: it.reason().to_owned(),
        words: it.to_string(),
        then: BY_ITSELF,
    };
    all.iter().map(row).collect()
}
