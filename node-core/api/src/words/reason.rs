//! Short names of reasons. Their sentences, and whether they can be avoided, are those of the model's catalogue.

/// "Faster here": codes are words already. `is_option`: an option of the command is the reason, and keeps its dashes.
pub fn title(code: &str, is_option: bool) -> String {
    let words = match code {
        "link" => "Linking".to_owned(),
        "probe" => "Configure tests".to_owned(),
        "query-invocation" => "Questions to the compiler".to_owned(),
        code if is_option => code.replace("unsupported-flag:", "option "),
        code => code.replace('-', " "),
    };
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::title;

    #[test]
    fn codes_become_names() {
        assert_eq!(title("faster-here", false), "Faster here");
        assert_eq!(title("link", false), "Linking");
        assert_eq!(title("unsupported-flag:-fprofile-list", true), "Option -fprofile-list");
        assert_eq!(title("", false), "");
    }
}
