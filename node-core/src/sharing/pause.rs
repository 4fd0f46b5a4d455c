//! A pause over restarts of the node: `pause.json` in the state folder. It ends by the clock that counts suspend too; the
//! wall clock is asked only after the PC itself was started anew.

use std::path::Path;
use std::time::Duration;

use potluck_model::share::Pause;
use serde::{Deserialize, Serialize};

use super::{PAUSE_MAX, unix_ms};

/// It has some hundred bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Tells one start of the PC from another.
    boot: String,
    /// End, milliseconds since that start.
    until_boot_ms: Option<u64>,
    /// The same by the wall clock.
    until_unix_ms: Option<u64>,
    finish: bool,
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

pub(super) fn keep(file: &Path, pause: Option<Pause>, now: Duration) -> std::io::Result<()> {
    let Some(pause) = pause else {
        return match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    let kept = Kept {
        boot: boot_id(),
        until_boot_ms: pause.until.map(|until| until.as_millis() as u64),
        until_unix_ms: pause.until.map(|until| unix_ms() + until.saturating_sub(now).as_millis() as u64),
        finish: pause.finish,
    };
    crate::store::write_whole(file, &serde_json::to_vec(&kept).map_err(std::io::Error::other)?)
}

pub(super) fn load(file: &Path, now: Duration) -> Option<Pause> {
    if std::fs::symlink_metadata(file).is_err() {
        return None;
    }
    let Some(kept) = crate::store::read_json::<Kept>(file, FILE_BYTES_MAX) else {
        // Whoever paused did not want jobs: better one pause too many, which the tray shows. Kept, because what was there
        // has been set aside.
        let pause = Some(Pause { until: None, finish: false });
        if let Err(error) = keep(file, pause, now) {
            crate::log::warn(&format!("{}: {error}", file.display()));
        }
        return pause;
    };
    let until = match (kept.until_boot_ms, kept.until_unix_ms) {
        (Some(boot_ms), _) if kept.boot == boot_id() && !kept.boot.is_empty() => Some(Duration::from_millis(boot_ms)),
        (_, Some(unix)) => Some(now + Duration::from_millis(unix.saturating_sub(unix_ms())).min(PAUSE_MAX)),
        _ => None,
    };
    Some(Pause { until, finish: kept.finish })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::boot_time;

    #[test]
    fn a_pause_survives_a_restart_and_ends_when_it_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pause.json");
        let now = boot_time();
        assert_eq!(load(&file, now), None);
        for until in [Some(Duration::from_millis((now + Duration::from_secs(3600)).as_millis() as u64)), None] {
            let pause = Pause { until, finish: until.is_none() };
            keep(&file, Some(pause), now).unwrap();
            assert_eq!(load(&file, now + Duration::from_secs(60)), Some(pause));
        }
        keep(&file, None, now).unwrap();
        assert_eq!(load(&file, now), None);
    }

    #[test]
    fn after_the_pc_was_started_anew_the_wall_clock_says_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pause.json");
        let kept = |until: u64| format!(r#"{{"boot":"x","until_boot_ms":5,"until_unix_ms":{until},"finish":false}}"#);
        std::fs::write(&file, kept(unix_ms() + 100_000)).unwrap();
        let left = load(&file, Duration::ZERO).unwrap().until.unwrap();
        assert!(left > Duration::from_secs(90) && left <= Duration::from_secs(100), "{left:?}");
        std::fs::write(&file, kept(u64::MAX)).unwrap();
        assert_eq!(load(&file, Duration::ZERO).unwrap().until, Some(PAUSE_MAX), "a clock set back is no eternity");
    }
}
