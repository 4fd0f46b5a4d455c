//! Battery or mains, as the kernel tells it in /sys/class/power_supply.

use std::fs;
use std::path::{Path, PathBuf};

use potluck_model::share::Power as Now;

/// The folder of power supplies.
#[derive(Debug)]
pub struct Power {
    root: PathBuf,
}

impl Default for Power {
    fn default() -> Self {
        // Tests pull the plug of a folder of their own.
        let own = std::env::var_os("POTLUCK_POWER_SUPPLY").map(PathBuf::from);
        Self::at(own.as_deref().unwrap_or(Path::new("/sys/class/power_supply")))
    }
}

impl Power {
    /// Supplies in a folder like the kernel's.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What feeds this PC, and whether it has a battery at all. What cannot be read counts as mains: most PCs have no
    /// battery.
    pub fn look(&self) -> (Now, bool) {
        let mut charge: Option<u8> = None;
        let (mut discharging, mut plugged) = (false, false);
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default().trim().to_owned();
            match read("type").as_str() {
                // That of a mouse is of scope Device.
                "Battery" if read("scope") != "Device" && read("present") != "0" => {
                    let percent = read("capacity").parse().unwrap_or(0_u8).min(100);
                    charge = Some(charge.map_or(percent, |charge| charge.max(percent)));
                    discharging |= read("status") == "Discharging";
                }
                "Mains" | "USB" => plugged |= read("online") == "1",
                _ => {}
            }
        }
        match charge {
            Some(percent) if discharging && !plugged => (Now::Battery(percent), true),
            charge => (Now::Mains, charge.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supplies(files: &[(&str, &str)]) -> (Now, bool) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Power::at(dir.path()).look()
    }

    #[test]
    fn a_laptop_is_on_battery_only_without_its_plug() {
        let battery = [("BAT0/type", "Battery"), ("BAT0/capacity", "62"), ("BAT0/status", "Discharging")];
        assert_eq!(supplies(&battery), (Now::Battery(62), true));
        let with = |more: &[(&'static str, &'static str)]| supplies(&[&battery, more].concat());
        assert_eq!(with(&[("AC/type", "Mains"), ("AC/online", "0")]), (Now::Battery(62), true));
        assert_eq!(with(&[("AC/type", "Mains"), ("AC/online", "1")]), (Now::Mains, true));
        let charging = [("BAT0/type", "Battery"), ("BAT0/capacity", "62"), ("BAT0/status", "Charging")];
        assert_eq!(supplies(&charging), (Now::Mains, true));
    }

    #[test]
    fn a_desktop_with_a_mouse_is_on_mains() {
        assert_eq!(supplies(&[]), (Now::Mains, false));
        let mouse = [("m/type", "Battery"), ("m/scope", "Device"), ("m/capacity", "9"), ("m/status", "Discharging")];
        assert_eq!(supplies(&mouse), (Now::Mains, false));
        assert_eq!(Power::at(Path::new("/nowhere")).look(), (Now::Mains, false));
    }
}
