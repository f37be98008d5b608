//! Waiting for something to become true.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// An observation after which there is nothing more to wait for, such as that a program has ended.
#[derive(Debug)]
pub struct Hopeless(pub String);

impl fmt::Display for Hopeless {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Calls `observe` ten times a second until it succeeds, and returns what it saw. After `within`
/// the error tells `what` was waited for and why the last observation was not it; after a
/// [`Hopeless`] one at once.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut observe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        // An observation that hangs (a server that accepts and says nothing) must not outlive the
        // deadline either.
        match tokio::time::timeout_at(deadline, observe()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(error)) if error.is::<Hopeless>() => {
                return Err(error.context(format!("{what}: never")));
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if Instant::now() + Duration::from_millis(100) >= deadline {
            let last = last.unwrap_or_else(|| anyhow!("no observation came to an end"));
            return Err(anyhow!(
                "{what}: not within {within:?}; last seen: {last:#}"
            ));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn returns_the_first_success() {
        let calls = Cell::new(0);
        let seen = eventually("three calls", Duration::from_secs(5), || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 {
                bail!("call {}", calls.get());
            }
            Ok(calls.get())
        })
        .await
        .unwrap();
        assert_eq!(seen, 3);
    }

    #[tokio::test]
    async fn tells_the_last_observation() {
        let error = eventually::<(), _, _>("the moon", Duration::from_millis(250), || async {
            bail!("it is Tuesday")
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the moon: not within 250ms; last seen: it is Tuesday"
        );
    }

    #[tokio::test]
    async fn gives_up_when_there_is_no_hope() {
        let error = eventually::<(), _, _>("an answer", Duration::from_secs(60), || async {
            Err(Hopeless("it died".to_owned()).into())
        })
        .await
        .unwrap_err();
        assert_eq!(format!("{error:#}"), "an answer: never: it died");
    }

    #[tokio::test]
    async fn ends_an_observation_that_hangs() {
        let error = eventually::<(), _, _>("an answer", Duration::from_millis(150), || {
            std::future::pending()
        })
        .await
        .unwrap_err();
        assert!(
            error.to_string().contains("no observation came to an end"),
            "{error}"
        );
    }
}
