use super::*;
use crds::cache::Cache;
use crds::restore_order::VolumeMode;
use crds::volume_restore::RestoreResult;

fn volume(bytes: i64) -> OrderVolume {
    OrderVolume {
        driver: "d".to_owned(),
        name: "pvc-1".to_owned(),
        required_bytes: bytes,
        limit_bytes: 0,
        volume_mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        mount_options: Vec::new(),
        access_modes: Vec::new(),
        parameters: [].into(),
    }
}

fn content(key: &str) -> Content {
    Content {
        key: key.to_owned(),
        backup: "n/b".to_owned(),
        cache: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

/// A snapshot of 100 bytes, taken so many seconds ago.
fn kept(name: &str, age: i64, count: Option<i64>) -> Kept {
    Kept {
        content: "k".to_owned(),
        backup: "n/b".to_owned(),
        state: State::Made(format!("handle of {name}")),
        size_bytes: 100,
        created: at(-age),
        expires: at(60),
        cache: count.map(|count| Cache {
            time_to_live_seconds: 60,
            count,
        }),
        ..Kept::begun(
            name.to_owned(),
            String::new(),
            "d".to_owned(),
            RestoreResult::default(),
        )
    }
}

fn snapshots(all: &[Kept]) -> (tempfile::TempDir, Snapshots) {
    let work = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(work.path()).unwrap();
    for one in all {
        snapshots.save(one.clone()).unwrap();
    }
    (work, snapshots)
}

#[test]
fn the_newest_that_fits_serves() {
    let (_work, snapshots) = snapshots(&[
        kept("old", 20, Some(9)),
        kept("new", 10, Some(9)),
        Kept {
            size_bytes: 101,
            ..kept("larger", 1, Some(9))
        },
        Kept {
            expires: at(-1),
            ..kept("expired", 1, Some(9))
        },
        Kept {
            driver: "other".to_owned(),
            ..kept("of another driver", 1, Some(9))
        },
        Kept {
            state: State::Perhaps("volume".to_owned()),
            ..kept("unfinished", 1, Some(9))
        },
    ]);
    let wants_kept = |key| Content {
        cache: kept("any", 0, Some(1)).cache,
        ..content(key)
    };
    let found = |key, bytes| {
        let found = snapshots.find(&wants_kept(key), &volume(bytes));
        found.map(|kept| kept.name)
    };
    assert_eq!(snapshots.find(&content("k"), &volume(100)), None);
    assert_eq!(found("k", 100).as_deref(), Some("new"));
    assert_eq!(found("k", 101).as_deref(), Some("larger"));
    assert_eq!(found("k", 99), None);
    assert_eq!(found("other", 100), None);
}

#[test]
fn what_is_too_old_or_too_much_goes() {
    let (work, snapshots) = snapshots(&[
        kept("1", 30, Some(1)),
        kept("2", 20, Some(3)),
        kept("3", 10, Some(2)),
        Kept {
            backup: "n/other".to_owned(),
            ..kept("other", 40, Some(1))
        },
        Kept {
            expires: at(-1),
            ..kept("shared", 5, None)
        },
        kept("awaited", 5, None),
    ]);
    let surplus = |snapshots: &Snapshots| {
        snapshots
            .surplus()
            .into_iter()
            .map(|kept| kept.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(surplus(&snapshots), ["shared", "1"]);
    drop(snapshots);
    let again = Snapshots::open(work.path()).unwrap();
    assert_eq!(surplus(&again), ["shared", "1"], "after a restart too");
    again.forget("1");
    drop(again);
    let again = Snapshots::open(work.path()).unwrap();
    assert_eq!(surplus(&again), ["shared"]);
}

#[test]
fn no_more_is_kept_than_is_free() {
    let (_work, snapshots) = snapshots(&[
        kept("1", 30, Some(9)),
        kept("2", 20, Some(9)),
        kept("3", 10, Some(9)),
        kept("awaited", 40, None),
        Kept {
            driver: "other".to_owned(),
            ..kept("of another driver", 50, Some(9))
        },
    ]);
    let surplus = |free| {
        snapshots.has_free("d", Some(free));
        let names = snapshots.surplus().into_iter().map(|kept| kept.name);
        names.collect::<Vec<_>>()
    };
    assert!(surplus(300).is_empty());
    assert_eq!(surplus(299), ["1"]);
    assert_eq!(surplus(0), ["3", "2", "1"]);
    snapshots.has_free("d", None);
    assert!(snapshots.surplus().is_empty(), "it no longer says so");
}

#[test]
fn what_is_not_there_takes_nothing_from_what_is() {
    let (_work, snapshots) = snapshots(&[
        kept("good", 30, Some(1)),
        Kept {
            state: State::Perhaps("volume".to_owned()),
            expires: Timestamp::MAX,
            ..kept("begun", 1, Some(1))
        },
        Kept {
            expires: at(-1),
            ..kept("useless", 2, Some(1))
        },
        Kept {
            size_bytes: 1000,
            backup: "n/other".to_owned(),
            ..kept("too large", 3, Some(1))
        },
    ]);
    snapshots.has_free("d", Some(500));
    let names = snapshots.surplus().into_iter().map(|kept| kept.name);
    assert_eq!(names.collect::<Vec<_>>(), ["useless", "too large"]);
}

#[test]
fn what_is_there_perhaps_goes_when_nobody_is_at_it() {
    let begun = Kept {
        state: State::Perhaps("volume".to_owned()),
        expires: Timestamp::MAX,
        ..kept("begun", 1, Some(9))
    };
    let (work, snapshots) = snapshots(&[begun]);
    assert!(snapshots.surplus().is_empty());
    drop(snapshots);
    let again = Snapshots::open(work.path()).unwrap();
    assert_eq!(again.surplus().len(), 1, "the process is another one");

    let (_work, snapshots) = self::snapshots(&[Kept {
        state: State::Perhaps("volume".to_owned()),
        expires: Timestamp::MAX,
        ..kept("begun", 1, Some(9))
    }]);
    snapshots.retire("begun");
    assert_eq!(snapshots.surplus().len(), 1, "its call has failed");
}

#[test]
fn what_people_allowed_is_told() {
    let (_work, snapshots) = snapshots(&[kept("shared", 1, None), kept("cached", 2, Some(1))]);
    let told = snapshots.told();
    assert_eq!(told.borrow().len(), 1);
    assert_eq!(told.borrow()[0].backup, "n/b");
    assert_eq!(snapshots.reclaimable("d"), 200);
    snapshots.retire("cached");
    assert!(
        snapshots
            .find(&content("k"), &volume(100))
            .is_some_and(|it| it.name == "shared")
    );
    snapshots.forget("cached");
    assert!(told.borrow().is_empty());
}

#[tokio::test]
async fn the_first_reads_and_the_others_copy() {
    let (_work, snapshots) = snapshots(&[]);
    let snapshots = Arc::new(snapshots);
    let share = |key: &'static str| {
        let snapshots = Arc::clone(&snapshots);
        async move {
            let line = snapshots.line(key);
            snapshots.share(&content(key), &volume(100), line).await
        }
    };
    let first = share("k").await;
    assert!(matches!(first, Share::First(_)) && !first.is_awaited());
    let second = tokio::spawn(share("k"));
    tokio::task::yield_now().await;
    assert!(first.is_awaited() && !second.is_finished());
    let other = share("other").await;
    assert!(matches!(other, Share::First(_)), "another content is free");

    snapshots.save(kept("made", 0, None)).unwrap();
    drop(first);
    let second = second.await.unwrap();
    assert!(matches!(second, Share::Copy(kept) if kept.name == "made"));
}

#[tokio::test]
async fn where_the_first_fails_the_next_reads() {
    let (_work, snapshots) = snapshots(&[]);
    let snapshots = Arc::new(snapshots);
    let (k, small) = (content("k"), volume(1));
    let first = snapshots.share(&k, &small, snapshots.line("k")).await;
    let second = {
        let snapshots = Arc::clone(&snapshots);
        tokio::spawn(async move {
            let line = snapshots.line("k");
            snapshots.share(&content("k"), &volume(1), line).await
        })
    };
    tokio::task::yield_now().await;
    drop(first);
    assert!(matches!(second.await.unwrap(), Share::First(_)));
}
