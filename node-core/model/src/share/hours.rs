//! Quiet hours: the weekly times in which sharing is allowed, as the wall clock of this place shows them.

use std::time::Duration;

/// Minutes of a day.
const DAY_MIN: u32 = 24 * 60;

/// The wall clock of this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wall {
    /// Monday is 0.
    pub weekday: u8,
    /// Minutes after midnight.
    pub minute: u16,
    /// Seconds of the minute.
    pub second: u8,
}

/// Hours of some days. `to` not after `from` ends on the next day; equal means the whole day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    /// Days on which they begin; Monday is bit 0.
    pub days: u8,
    /// Minutes after midnight.
    pub from_min: u16,
    /// Minutes after midnight.
    pub to_min: u16,
}

impl Hours {
    fn begins_on(&self, weekday: u32) -> bool {
        self.days & 1 << (weekday % 7) != 0
    }

    /// Minutes that they last.
    fn lasts(&self) -> u32 {
        let (from, to) = (u32::from(self.from_min).min(DAY_MIN), u32::from(self.to_min).min(DAY_MIN));
        if to > from { to - from } else { to + DAY_MIN - from }
    }

    /// Whether they hold in a minute of the week.
    fn hold_at(&self, weekday: u32, minute: u32) -> bool {
        let from = u32::from(self.from_min);
        let today = self.begins_on(weekday) && minute >= from && minute < from + self.lasts();
        let since_yesterday = minute + DAY_MIN;
        today || self.begins_on(weekday + 6) && since_yesterday >= from && since_yesterday < from + self.lasts()
    }
}

/// Time until one of these holds; zero: now, or there are none. None: never.
pub(super) fn opens_in(hours: &[Hours], wall: Wall) -> Option<Duration> {
    if hours.is_empty() {
        return Some(Duration::ZERO);
    }
    let (weekday, minute) = (u32::from(wall.weekday % 7), u32::from(wall.minute).min(DAY_MIN - 1));
    if hours.iter().any(|hours| hours.hold_at(weekday, minute)) {
        return Some(Duration::ZERO);
    }
    let begins = |hours: &Hours| {
        let in_days = |days: u32| (days * DAY_MIN + u32::from(hours.from_min)).checked_sub(minute);
        (0..=7).filter(|days| hours.begins_on(weekday + days)).filter_map(in_days).find(|wait| *wait > 0)
    };
    let minutes = hours.iter().filter_map(begins).min()?;
    Some(Duration::from_secs(u64::from(minutes) * 60).saturating_sub(Duration::from_secs(wall.second.into())))
}
