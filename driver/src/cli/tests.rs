use super::*;

fn settings(arguments: &[&str]) -> Result<Settings, ConfigurationError> {
    let all = ["driver", "--node-name=node-1"].iter().chain(arguments);
    Arguments::try_parse_from(all).unwrap().settings()
}

#[test]
fn the_command_is_well_formed() {
    use clap::CommandFactory as _;
    Arguments::command().debug_assert();
}

#[test]
fn the_defaults_are_what_the_manifests_rely_on() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.name, "fastcopy.csi.example.com");
    assert_eq!(settings.pool.directory, PathBuf::from("/var/lib/fastcopy"));
    assert_eq!(settings.pool.kind, PoolKind::Directory);
    assert_eq!(settings.endpoint, PathBuf::from("/csi/csi.sock"));
    assert_eq!(settings.pool.policy, Policy::default());
    assert!(!settings.pool.attach && !settings.controller_expansion);
    assert_eq!(settings.pool.max_volumes, None);
    assert_eq!(settings.http, Some("127.0.0.1:9808".parse().unwrap()));
    let registration = settings.registration.unwrap();
    assert_eq!(
        registration.directory,
        PathBuf::from("/var/lib/kubelet/plugins_registry")
    );
    let socket = "/var/lib/kubelet/plugins/fastcopy.csi.example.com/csi.sock";
    assert_eq!(registration.endpoint, PathBuf::from(socket));
}

#[test]
fn each_pool_is_chosen_by_its_flag() {
    let kind = |arguments: &[&str]| settings(arguments).unwrap().pool.kind;
    let file = |sparse| PoolKind::File {
        size: 20 << 30,
        sparse,
    };
    assert_eq!(kind(&["--pool-size=20Gi"]), file(false));
    assert_eq!(kind(&["--pool-size=20Gi", "--pool-sparse"]), file(true));
    assert_eq!(
        kind(&["--pool-device=/dev/sdb"]),
        PoolKind::Device("/dev/sdb".into())
    );
}

#[test]
fn attaching_expansion_limits_and_overcommitment_are_chosen_by_flags() {
    let chosen = settings(&[
        "--attach",
        "--controller-expansion",
        "--max-volumes=8",
        "--overcommit=1.5",
        "--stop-percent=80",
    ]);
    let chosen = chosen.unwrap();
    assert!(chosen.pool.attach && chosen.controller_expansion);
    assert_eq!(chosen.pool.max_volumes, Some(8));
    let policy = Policy {
        overcommit: 1.5,
        stop_percent: 80,
        ..Policy::default()
    };
    assert_eq!(chosen.pool.policy, policy);
    let watermark = settings(&["--overcommit=2"]).unwrap().pool.policy;
    assert_eq!(watermark.stop_percent, Policy::default().stop_percent);
}

#[test]
fn the_halves_can_be_apart() {
    assert_eq!(settings(&[]).unwrap().controller_endpoint, None);
    let apart = settings(&["--controller-endpoint=unix:///csi/controller.sock"]);
    let socket = apart.unwrap().controller_endpoint;
    assert_eq!(socket, Some("/csi/controller.sock".into()));
}

#[test]
fn parts_can_be_turned_off() {
    let settings = settings(&["--no-registration", "--no-http"]).unwrap();
    assert!(settings.registration.is_none() && settings.http.is_none());
}

#[test]
fn mistakes_are_told_in_one_sentence() {
    for (arguments, words) in [
        (&["--pool-size=100Mi"][..], "at least 512 MiB"),
        (
            &["--pool-size=20Gi", "--pool-device=/dev/sdb"],
            "set one of them",
        ),
        (&["--pool-sparse"], "--pool-size, which is not set"),
        (&["--pool=pool"], "--pool pool is not an absolute path"),
        (&["--pool-device=sdb"], "not an absolute path"),
        (&["--overcommit=0.5"], "--overcommit 0.5 is not at least 1"),
        (&["--overcommit=NaN"], "is not at least 1"),
        (&["--overcommit=inf"], "is not at least 1"),
        (&["--stop-percent=80"], "only with --overcommit"),
        (&["--overcommit=2", "--stop-percent=0"], "from 1 to 100"),
        (&["--overcommit=2", "--stop-percent=101"], "from 1 to 100"),
        (&["--max-volumes=0"], "use at least 1"),
        (&["--driver-name=x_y"], "domain name notation"),
        (&["--driver-name=csi.v2"], "ending with a letter"),
        (&["--endpoint=tcp://127.0.0.1:1"], "not a Unix socket"),
        (&["--kubelet-endpoint="], "names no socket"),
        (
            &["--controller-endpoint=/csi/csi.sock"],
            "leave --controller-endpoint out",
        ),
        (&["--node-name=-"], "topology value"),
        (&["--node-name="], "set --node-name"),
    ] {
        let arguments: Vec<_> = ["driver", "--node-name=n"]
            .iter()
            .chain(arguments)
            .collect();
        let mut command = arguments.clone();
        if arguments.len() > 2 && arguments[2].starts_with("--node-name") {
            command.remove(1);
        }
        let message = Arguments::try_parse_from(command)
            .unwrap()
            .settings()
            .unwrap_err()
            .to_string();
        assert!(message.contains(words), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let size = Arguments::try_parse_from(["driver", "--pool-size=20GiB"]).unwrap_err();
    assert!(size.to_string().contains("write one like 20Gi"), "{size}");
}
