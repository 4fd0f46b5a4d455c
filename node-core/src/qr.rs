//! A text as a QR code: an image for the window, and lines for a terminal. Both have the quiet zone that scanners need.

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code: four, says the standard.
const QUIET: usize = 4;

/// Black on white, so that it can be scanned whatever the window's colours are.
pub fn svg(text: &str) -> Option<String> {
    use qrcode::render::svg;
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let mut drawn = code.render::<svg::Color<'_>>();
    Some(drawn.dark_color(svg::Color("#000000")).light_color(svg::Color("#ffffff")).quiet_zone(true).build())
}

/// Two rows of modules a line, in half blocks: dark modules are drawn, light ones are spaces. It can be scanned only as
/// black on white: see `on_terminal`.
pub fn lines(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let dark = |row: usize, column: usize| {
        let inside = (QUIET..QUIET + width).contains(&row) && (QUIET..QUIET + width).contains(&column);
        inside && code[(column - QUIET, row - QUIET)] == Color::Dark
    };
    let side = width + 2 * QUIET;
    let line = |row: usize| {
        let block = |column| match (dark(row, column), dark(row + 1, column)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        };
        (0..side).map(block).collect()
    };
    Some((0..side).step_by(2).map(line).collect())
}

/// The same lines in black on white, whatever the terminal's own colours are.
pub fn on_terminal(lines: &str) -> String {
    lines.lines().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_the_code_with_its_quiet_zone() {
        let text =
            format!("pool:join?team={}&via=192.0.2.7:10555&id={}&s={}", "a".repeat(64), "b".repeat(64), "c".repeat(32));
        let lines = lines(&text).unwrap();
        let code = QrCode::with_error_correction_level(&text, EcLevel::L).unwrap();
        let side = code.width() + 2 * QUIET;
        assert_eq!(lines.len(), side.div_ceil(2));
        assert!(lines.iter().all(|line| line.chars().count() == side));
        assert!(side <= 80, "it fits into a terminal: {side}");
        let module = |row: usize, column: usize| match lines[row / 2].chars().nth(column) {
            Some('█') => true,
            Some('▀') => row.is_multiple_of(2),
            Some('▄') => row % 2 == 1,
            _ => false,
        };
        for row in 0..side {
            for column in 0..side {
                let inner = (QUIET..side - QUIET).contains(&row) && (QUIET..side - QUIET).contains(&column);
                let dark = inner && code[(column - QUIET, row - QUIET)] == Color::Dark;
                assert_eq!(module(row, column), dark, "row {row}, column {column}");
            }
        }
        let svg = svg(&text).unwrap();
        assert!(svg.contains("<svg") && svg.contains("#ffffff"));
    }
}
