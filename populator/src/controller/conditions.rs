//! Standard conditions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// One condition, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word in CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Sets the condition `kind`. Its transition time moves only when its status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let since = get(conditions, kind)
        .filter(|condition| condition.status == verdict.status)
        .map_or_else(
            || whole_seconds(now),
            |condition| condition.last_transition_time.clone(),
        );
    let condition = Condition {
        type_: kind.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.clone(),
        message: verdict.message.clone(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions
        .iter_mut()
        .find(|existing| existing.type_ == kind)
    {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}

/// The condition `kind`.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The API server keeps whole seconds; anything finer would look like a change for ever.
fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let verdict = |status, reason: &str| Verdict {
            status,
            reason: reason.to_owned(),
            message: String::new(),
        };
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            "Ready",
            &verdict("False", "A"),
            None,
            at(1),
        );
        set(
            &mut conditions,
            "Ready",
            &verdict("False", "B"),
            None,
            at(2),
        );
        let ready = get(&conditions, "Ready").unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.last_transition_time.0),
            ("B", at(1))
        );
        set(&mut conditions, "Ready", &verdict("True", "C"), None, at(3));
        assert_eq!(
            get(&conditions, "Ready").unwrap().last_transition_time.0,
            at(3)
        );
        assert_eq!(conditions.len(), 1);
    }
}
