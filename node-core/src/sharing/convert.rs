//! Settings as the api has them, and as the policy does.

use std::time::Duration;

use potluck_api::view::{self, ShareSettings};
use potluck_model::share::{self, Settings};

/// Hours that a person may set.
const HOURS_MAX: usize = 168;

/// For the policy.
pub fn model_settings(settings: &ShareSettings) -> Settings {
    let cores = |cores| match cores {
        view::Cores::AllBut(kept) => share::Cores::AllBut(kept),
        view::Cores::Count(count) => share::Cores::Count(count),
    };
    let hours = settings.hours.iter().map(|hours| share::Hours {
        days: hours.days,
        from_min: hours.from_min,
        to_min: hours.to_min,
    });
    Settings {
        preset: match settings.preset {
            view::Preset::Away => share::Preset::Away,
            view::Preset::ALittle => share::Preset::ALittle,
            view::Preset::Dedicated => share::Preset::Dedicated,
            view::Preset::Custom => share::Preset::Custom,
        },
        away_after: Duration::from_secs(settings.away_after_s.into()),
        away_when_locked: settings.away_when_locked,
        cores_away: cores(settings.cores_away),
        cores_in_use: cores(settings.cores_in_use),
        battery: match settings.battery {
            view::Battery::Never => share::Battery::Never,
            view::Battery::Above50 => share::Battery::Above(50),
            view::Battery::Above80 => share::Battery::Above(80),
            view::Battery::Always => share::Battery::Always,
        },
        load_gate_percent: settings.load_gate_percent,
        keep_free_bytes: u64::from(settings.keep_free_mib) << 20,
        keep_free_disk_bytes: u64::from(settings.keep_free_disk_mib) << 20,
        hours: hours.collect(),
    }
}

/// Settings that somebody sends, within their ranges; otherwise a sentence.
pub fn checked(settings: ShareSettings) -> Result<ShareSettings, String> {
    let wrong = if !(60..=3600).contains(&settings.away_after_s) {
        "away after: 1 to 60 minutes are possible"
    } else if !(10..=80).contains(&settings.load_gate_percent) {
        "other programs: 10 to 80 % are possible"
    } else if settings.cores_away == view::Cores::Count(0) {
        "cores when away: at least 1\nhint: to lend none, turn sharing off"
    } else if settings.keep_free_mib > 1 << 20 {
        "memory to keep free: at most 1024 GiB"
    } else if settings.keep_free_disk_mib > 1 << 20 {
        "disk to keep free: at most 1024 GiB"
    } else if settings.hours.len() > HOURS_MAX || settings.hours.iter().any(|h| h.from_min > 1440 || h.to_min > 1440) {
        "hours: times from 00:00 to 24:00, and at most 168 of them"
    } else {
        return Ok(settings);
    };
    Err(wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_chose_is_the_same_for_the_window_and_the_policy() {
        assert_eq!(model_settings(&ShareSettings::default()), Settings::default());
    }
}
