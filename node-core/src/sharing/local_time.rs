//! The wall clock of this place.

use std::time::Duration;

use potluck_model::share::Wall;

/// Pauses "until tomorrow" end at this hour (UX 2.2).
const MORNING_HOUR: libc::c_int = 8;

fn broken_down(unix_ms: u64) -> libc::tm {
    let seconds = (unix_ms / 1000) as libc::time_t;
    // SAFETY: all fields of tm are integers and a pointer, for which zero is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; a time that cannot be broken down leaves the zeroes.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    tm
}

/// Weekday and time of a moment, milliseconds since 1970.
pub fn wall(unix_ms: u64) -> Wall {
    let tm = broken_down(unix_ms);
    Wall {
        // Sunday is 0 in C.
        weekday: ((tm.tm_wday + 6) % 7) as u8,
        minute: (tm.tm_hour * 60 + tm.tm_min) as u16,
        second: tm.tm_sec.clamp(0, 59) as u8,
    }
}

/// What local time is ahead of UTC at a moment, in seconds.
pub fn ahead_s(unix_ms: u64) -> i32 {
    broken_down(unix_ms).tm_gmtoff as i32
}

/// The day, as a number that changes at local midnight.
pub fn day(unix_ms: u64) -> i64 {
    ((unix_ms / 1000) as i64 + i64::from(ahead_s(unix_ms))).div_euclid(86_400)
}

/// Time until 08:00 of the next day, across changes of summer time.
pub fn until_morning(unix_ms: u64) -> Duration {
    let mut tm = broken_down(unix_ms);
    tm.tm_mday += 1;
    (tm.tm_hour, tm.tm_min, tm.tm_sec, tm.tm_isdst) = (MORNING_HOUR, 0, 0, -1);
    // SAFETY: reads and normalises one live struct.
    let morning = unsafe { libc::mktime(&raw mut tm) };
    let morning_ms = u64::try_from(morning).unwrap_or(0) * 1000;
    Duration::from_millis(morning_ms.saturating_sub(unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_morning_after_is_at_eight() {
        // Mondays to Fridays of half a year, and so with a change of summer time where there is one.
        for day in 0..180 {
            let now = 1_700_000_000_000 + day * 86_400_000 + day * 1_234_567;
            let then = now + until_morning(now).as_millis() as u64;
            let (today, tomorrow) = (wall(now), wall(then));
            assert_eq!((tomorrow.minute, tomorrow.second), (8 * 60, 0));
            assert_eq!(tomorrow.weekday, (today.weekday + 1) % 7);
            assert_eq!(super::day(then), super::day(now) + 1);
        }
    }
}
