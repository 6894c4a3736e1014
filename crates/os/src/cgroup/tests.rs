use super::*;
use crate::process::{self, Exit, Launch, Process};
use std::path::PathBuf;
use std::time::Duration;

/// A directory of groups that ends with the test.
struct Own {
    base: Base,
    folder: tempfile::TempDir,
}

impl Own {
    /// `None`: no groups can be made here, which is noted.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let name = PathBuf::from(format!("gaiola-test{name}"));
        match Base::beside_own(&name) {
            Ok(base) => Some(Self { base, folder }),
            Err(error) => {
                crate::skip::skipped("cgroup", &crate::chain(&error));
                None
            }
        }
    }

    fn shell(&self, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.folder.path().into(),
            log: self.folder.path().join("log"),
            user: None,
            privileged: false,
        }
    }

    /// Runs a script in a group until it ends.
    async fn run(&self, group: &Group, script: &str) -> Exit {
        let launch = self.shell(script);
        let id = process::launch_into(&launch, group.entrances().unwrap()).unwrap();
        let process = Process::open(id).unwrap();
        process.ended().await.unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.base.remove(0);
    }
}

/// The limit itself where the controller is there.
fn only_missing(errors: Vec<LimitError>) -> bool {
    let is_missing = |error: &LimitError| matches!(error, LimitError::NoController(_));
    assert!(errors.iter().all(is_missing), "{errors:?}");
    !errors.is_empty()
}

#[tokio::test]
async fn a_process_that_uses_more_memory_than_its_limit_is_killed_with_its_children_counted() {
    let Some(own) = Own::start() else { return };
    let group = own.base.group("hog").unwrap();
    let memory = Some(32 << 20);
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    if only_missing(group.set(&limits)) {
        return crate::skip::skipped("cgroup", "there is no controller of memory");
    }
    // What is within the limit is left alone.
    assert_eq!(
        own.run(&group, "head -c 8M /dev/zero | tail -c 8M >/dev/null")
            .await,
        Exit::Status(0)
    );
    assert_eq!(group.kills().killed, 0);
    // A child holds all of it.
    let exit = own
        .run(&group, "head -c 100M /dev/zero | tail -c 100M >/dev/null")
        .await;
    assert_ne!(exit, Exit::Status(0));
    let kills = group.kills();
    assert!(kills.killed > 0 && kills.at_limit > 0, "{kills:?}");
    assert!(group.remove().is_ok(), "nobody is left in it");
}

#[tokio::test]
async fn a_process_starts_no_more_tasks_than_its_limit() {
    let Some(own) = Own::start() else { return };
    let group = own.base.group("forks").unwrap();
    let limits = Limits {
        tasks: Some(3),
        ..Limits::default()
    };
    if only_missing(group.set(&limits)) {
        return crate::skip::skipped("cgroup", "there is no controller of tasks");
    }
    own.run(
        &group,
        "sleep 0.1 & sleep 0.1 & sleep 0.1 & wait; echo never",
    )
    .await;
    assert!(own.log().contains("annot fork"), "{}", own.log());
    // Without the limit it goes on.
    assert!(!only_missing(group.set(&Limits::default())));
    let more = own
        .run(&group, "sleep 0.1 & sleep 0.1 & sleep 0.1 & wait")
        .await;
    assert_eq!(more, Exit::Status(0));
}

/// Waits to be admitted, then holds two megabytes.
const HOLDS: &str = "while [ ! -e go ]; do sleep 0.01; done
    x=$(head -c 2000000 /dev/zero | tr '\\0' x); touch held; sleep 60";

#[tokio::test]
async fn a_process_that_runs_is_admitted_and_none_is_killed_by_a_new_limit() {
    let Some(own) = Own::start() else { return };
    let group = own.base.group("holds").unwrap();
    let id = process::launch(&own.shell(HOLDS)).unwrap();
    let process = Process::open(id).unwrap();
    assert!(!group.has(id.pid));
    group.admit(&id.session_pids().unwrap()).unwrap();
    assert!(group.has(id.pid));
    fs::write(own.folder.path().join("go"), "").unwrap();
    until(|| own.folder.path().join("held").exists()).await;
    let limits = Limits {
        memory: Some(1 << 20),
        cpu: Some(1500),
        ..Limits::default()
    };
    let errors = group.set(&limits);
    let in_use =
        |error: &LimitError| matches!(error, LimitError::InUse { used } if *used > 1 << 20);
    match &group.memory {
        Some(_) => assert!(errors.iter().any(in_use), "{errors:?}"),
        None => crate::skip::skipped("cgroup", "there is no controller of memory"),
    }
    if let Some(cpu) = &group.cpu {
        let (file, quota) = match cpu.version {
            Version::One => ("cpu.cfs_quota_us", "150000"),
            Version::Two => ("cpu.max", "150000 100000"),
        };
        assert_eq!(cpu.read(file).as_deref().map(str::trim), Some(quota));
    }
    id.signal_session(rustix::process::Signal::KILL);
    process.ended().await.unwrap();
    until(|| id.session_is_empty() && group.remove().is_ok()).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
