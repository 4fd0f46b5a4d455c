//! What is sensed of this PC and its person: input and lock (`desktop`, `logind`), load and memory (`load`), battery
//! (`power`). Sources say what they know; `model::share` decides.

pub mod desktop;
pub mod load;
pub mod logind;
pub mod power;

use std::time::Duration;

use potluck_model::share::Presence;

/// A source that tells whether somebody is there.
pub trait Sensor: Send {
    /// Its name for people.
    fn name(&self) -> &'static str;

    /// Whether it sees each key: what only knows "not idle" says an age of zero.
    fn sees_keys(&self) -> bool {
        false
    }

    /// Time since somebody else who sits at this PC did something: another person's session that has the screen.
    fn others(&mut self, _now: Duration) -> Option<Duration> {
        None
    }

    /// What it sees at `now` ([`boot_time`]); None: it does not work here, or not now.
    fn look(&mut self, now: Duration) -> Option<Presence>;
}

/// Time since the PC was started, suspend included: it neither jumps nor stands still.
pub fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// All sources together. The first that knows of input decides, because those behind it are coarser, but it knows of one
/// person only: whoever else sits here counts as well. A lock counts whoever saw it. Returns also who it was; nobody means that somebody may be there.
pub fn look(sensors: &mut [Box<dyn Sensor>], now: Duration) -> (Presence, Option<&'static str>) {
    let mut all = Presence::default();
    let (mut source, mut key_age, mut others) = (None, None, None);
    for sensor in sensors {
        others = others.or_else(|| sensor.others(now));
        let Some(seen) = sensor.look(now) else { continue };
        if source.is_none() && (seen.input_age.is_some() || seen.locked_for.is_some()) {
            source = Some(sensor.name());
        }
        if sensor.sees_keys() {
            key_age = key_age.or(seen.input_age);
        }
        all.input_age = all.input_age.or(seen.input_age);
        all.locked_for = all.locked_for.max(seen.locked_for);
    }
    all.input_age = all.input_age.into_iter().chain(others).min();
    // Keys behind a lock: somebody types the password. The lock counts from the last of them.
    if let (Some(locked), Some(age)) = (all.locked_for, key_age) {
        all.locked_for = Some(locked.min(age));
    }
    (all, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sees(&'static str, Option<Presence>);

    /// Another person at the same PC, since when idle.
    struct Beside(u64);

    impl Sensor for Beside {
        fn name(&self) -> &'static str {
            "logind"
        }

        fn others(&mut self, _: Duration) -> Option<Duration> {
            Some(Duration::from_secs(self.0))
        }

        fn look(&mut self, _: Duration) -> Option<Presence> {
            seen(Some(self.0), None)
        }
    }

    impl Sensor for Sees {
        fn name(&self) -> &'static str {
            self.0
        }

        fn sees_keys(&self) -> bool {
            self.0 == "X11"
        }

        fn look(&mut self, _: Duration) -> Option<Presence> {
            self.1
        }
    }

    fn seen(input: Option<u64>, locked: Option<u64>) -> Option<Presence> {
        let seconds = |s: Option<u64>| s.map(Duration::from_secs);
        Some(Presence { input_age: seconds(input), locked_for: seconds(locked) })
    }

    fn together(sees: Vec<Sees>) -> (Presence, Option<&'static str>) {
        let mut sensors: Vec<Box<dyn Sensor>> = Vec::new();
        sees.into_iter().for_each(|sees| sensors.push(Box::new(sees)));
        look(&mut sensors, Duration::ZERO)
    }

    #[test]
    fn without_a_working_source_somebody_may_be_there() {
        assert_eq!(together(vec![Sees("a", None), Sees("b", None)]), (Presence::default(), None));
    }

    #[test]
    fn the_finer_source_decides_about_input_and_any_about_the_lock() {
        let (all, source) = together(vec![Sees("X11", seen(Some(30), None)), Sees("logind", seen(Some(0), Some(9)))]);
        assert_eq!((Some(all), source), (seen(Some(30), Some(9)), Some("X11")));
        let (all, source) = together(vec![Sees("X11", None), Sees("logind", seen(Some(0), None))]);
        assert_eq!((Some(all), source), (seen(Some(0), None), Some("logind")));
    }

    #[test]
    fn whoever_else_sits_here_counts_though_the_own_desktop_is_idle() {
        let at = |own: u64, other: u64| {
            let mut sensors: Vec<Box<dyn Sensor>> =
                vec![Box::new(Sees("X11", seen(Some(own), None))), Box::new(Beside(other))];
            look(&mut sensors, Duration::ZERO)
        };
        assert_eq!((Some(at(900, 0).0), at(900, 0).1), (seen(Some(0), None), Some("X11")));
        assert_eq!(Some(at(900, 950).0), seen(Some(900), None));
    }

    #[test]
    fn keys_behind_a_lock_begin_its_time_anew() {
        let (all, _) = together(vec![Sees("X11", seen(Some(2), None)), Sees("logind", seen(Some(0), Some(900)))]);
        assert_eq!(Some(all), seen(Some(2), Some(2)));
        // Who knows only "not idle" says nothing about keys.
        let (all, _) = together(vec![Sees("logind", seen(Some(0), Some(900)))]);
        assert_eq!(Some(all), seen(Some(0), Some(900)));
    }
}
