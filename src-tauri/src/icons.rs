//! The rendered icons of `icons/`, in the program: a tray icon must be there before any theme is found.

use potluck_api::tray::{Icon, Panel};

macro_rules! icons {
    ($state:literal, $panel:literal) => {
        [
            include_bytes!(concat!("../../icons/tray/", $state, "-", $panel, "-22.png")).as_slice(),
            include_bytes!(concat!("../../icons/tray/", $state, "-", $panel, "-24.png")).as_slice(),
            include_bytes!(concat!("../../icons/tray/", $state, "-", $panel, "-32.png")).as_slice(),
            include_bytes!(concat!("../../icons/tray/", $state, "-", $panel, "-44.png")).as_slice(),
        ]
    };
    ($state:literal) => {
        [icons!($state, "light"), icons!($state, "dark")]
    };
}

/// By panel, then by the sizes 22, 24, 32, 44.
type Shape = [[&'static [u8]; 4]; 2];
static OFF: Shape = icons!("off");
static READY: Shape = icons!("ready");
static HELPING: Shape = icons!("helping");
static BUILDING: Shape = icons!("building");
static ATTENTION: Shape = icons!("attention");

/// The app's icon, for windows.
pub static APP: &[u8] = include_bytes!("../../icons/app/128.png");

/// The PNG of an icon. `scale` is the screen's.
pub fn tray(icon: Icon, panel: Panel, scale: i32) -> &'static [u8] {
    let shape = match icon {
        Icon::Off => &OFF,
        Icon::Ready => &READY,
        Icon::Helping => &HELPING,
        Icon::Building => &BUILDING,
        Icon::Attention => &ATTENTION,
    };
    // Panels are 22 to 24 px high at scale 1; they scale down themselves, and better than up.
    shape[usize::from(panel == Panel::Dark)][if scale > 1 { 3 } else { 1 }]
}
