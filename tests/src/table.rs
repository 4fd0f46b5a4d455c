//! Tables in plain text: readable in a log, never wider than what they hold.

/// Columns aligned by their widest cell; the first is left-aligned, the others right-aligned.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut out = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padded = if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            out.push_str(&padded);
        }
        out.trim_end().to_string() + "\n"
    };
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    let mut out = line(header.to_vec()) + &line(rule.iter().map(String::as_str).collect());
    rows.iter().for_each(|row| out.push_str(&line(row.iter().map(String::as_str).collect())));
    out
}

/// The middle value; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a part `q` of all values lies; 0 of nothing.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => sorted[((n - 1) as f64 * q).round() as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = render(&["a", "count"], &[vec!["long name".into(), "1".into()], vec!["b".into(), "22222".into()]]);
        assert_eq!(text, "a          count\n---------  -----\nlong name      1\nb          22222\n");
    }

    #[test]
    fn medians_of_few_values() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), quantile(&[1.0, 2.0, 3.0, 4.0], 1.0)), (0.0, 2.0, 4.0));
    }
}
