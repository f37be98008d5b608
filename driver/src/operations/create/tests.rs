use super::*;

#[test]
fn a_volume_that_exists_must_be_what_is_wanted() {
    let found = VolumeRecord {
        name: "pvc".into(),
        size_bytes: 1 << 30,
        file_system: Some(FileSystem::Ext4),
        formatted: true,
        provisioning: Provisioning::Thin,
        mkfs_options: MkfsOptions::default(),
        source: None,
        attributes: Attributes::default(),
    };
    let wanted = |name: &str, required, limit, content| NewVolume {
        name: name.into(),
        size: SizeRange::parse(required, limit).unwrap(),
        content,
        provisioning: Provisioning::Thin,
        mkfs_options: MkfsOptions::default(),
        attributes: Attributes::default(),
        source: None,
        nodes: Vec::new(),
    };
    let any = Content::Mount(None);
    let other = |change: fn(&mut NewVolume)| {
        let mut new = wanted("pvc", 0, 0, any);
        change(&mut new);
        new
    };
    for (new, same) in [
        (wanted("pvc", 0, 0, any), true),
        (
            wanted("pvc", 0, 0, Content::Mount(Some(FileSystem::Ext4))),
            true,
        ),
        (wanted("pvc", 1 << 30, 1 << 30, any), true),
        (wanted("pvc", 1, 0, any), true),
        (wanted("pvc", (1 << 30) + 1, 0, any), false),
        (wanted("pvc", 0, (1 << 30) - 1, any), false),
        (
            wanted("pvc", 0, 0, Content::Mount(Some(FileSystem::Xfs))),
            false,
        ),
        (wanted("pvc", 0, 0, Content::Block), false),
        (wanted("other", 0, 0, any), false),
        (other(|new| new.provisioning = Provisioning::Thick), false),
        (
            other(|new| {
                let node = crate::volume::NodeName::parse("node").unwrap();
                new.source = Some(Source::Volume(VolumeId::of("x", &node)));
            }),
            false,
        ),
    ] {
        let result = compare(&found, &new);
        assert_eq!(result.is_ok(), same, "{new:?}");
        assert!(
            result
                .err()
                .is_none_or(|error| error.code() == Code::AlreadyExists)
        );
    }
}
