//! Takes names out of a text: what is known by name, and what has the shape of a path, an address, an id or a link. The
//! same thing gets the same placeholder everywhere. Pure; it does not find out names.

use std::collections::HashMap;
use std::net::IpAddr;

/// From this length on a name is also looked for inside words: shorter ones would destroy other words.
const INSIDE_WORDS_BYTES: usize = 6;
/// Names that are shown are cut at this many characters.
const SHOWN_CHARS: usize = 64;
/// Longest text of an IPv6 address, with an IPv4 tail.
const ADDRESS_BYTES_MAX: usize = 45;
/// An id in its short form, and the shortest beginning of an id that is shown anywhere.
const SHORT_ID: usize = 12;
const SHORTEST_ID: usize = 8;

/// Words that many machines, users and folders are called, and that tell nothing of anybody. Taking them out would
/// destroy what the text says.
const COMMON: &[&str] = &[
    "root",
    "localhost",
    "localhost.localdomain",
    "unnamed",
    "potluck",
    "linux",
    "debian",
    "ubuntu",
    "fedora",
    "arch",
    "build",
    "debug",
    "release",
    "home",
    "out",
    "src",
    "test",
    "tests",
    "tmp",
];

/// Folders of the system: their paths are the same on every PC.
const SYSTEM: &[&str] = &[
    "/usr/",
    "/lib/",
    "/lib64/",
    "/bin/",
    "/sbin/",
    "/etc/",
    "/proc/",
    "/sys/",
    "/dev/",
    "/run/user/",
    "/run/systemd/",
    "/.potluck/",
];
const NOT_SYSTEM: &[&str] = &["/usr/src/", "/usr/home/", "/dev/shm/"];

/// Files of projects: a word that ends so is one, without any folder.
const SOURCES: &[&str] = &[
    "c", "cc", "cpp", "cxx", "c++", "h", "hh", "hpp", "hxx", "inc", "o", "obj", "ii", "S", "rs", "cu", "a", "so", "ko",
];
/// Own files, which may stand before a line's number as a host stands before a port.
const OWN_FILES: &[&str] = &["toml", "log", "json", "service", "conf", "redb"];
/// Ends of host names in private networks.
const PRIVATE_HOSTS: &[&str] =
    &[".local", ".lan", ".home", ".internal", ".localdomain", ".intranet", ".corp", ".home.arpa", ".fritz.box"];
/// Where nodes listen if nobody says otherwise.
const PORT_USUAL: &str = "10555";

/// What a name is a name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Pc,
    Team,
    User,
    Project,
    Address,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Team => "team",
            Self::User => "user",
            Self::Project => "project",
            Self::Address => "address",
        }
    }
}

/// All that is known by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Name as it occurs, and its placeholder.
    words: Vec<(String, String)>,
    /// Ids, hexadecimal, and their placeholders.
    ids: Vec<(String, String)>,
    /// Path and placeholder.
    folders: Vec<(String, String)>,
    counts: HashMap<Kind, usize>,
}

impl Names {
    /// One thing with all its names, and its id if it has one. Known already: it keeps its placeholder.
    pub(super) fn add(&mut self, kind: Kind, id: &str, names: &[&str]) {
        let id = id.to_ascii_lowercase();
        let names: Vec<String> = names.iter().map(|n| clean(n).trim().to_owned()).filter(|n| is_telling(n)).collect();
        if id.is_empty() && names.is_empty() {
            return;
        }
        let known = match id.as_str() {
            "" => names.iter().find_map(|n| self.words.iter().find(|(word, _)| word.eq_ignore_ascii_case(n))),
            id => self.ids.iter().find(|(known, _)| known == id),
        };
        let placeholder = known.map(|(_, placeholder)| placeholder.clone()).unwrap_or_else(|| {
            let count = self.counts.entry(kind).or_default();
            *count += 1;
            format!("{}-{count}", kind.word())
        });
        if !id.is_empty() && !self.ids.iter().any(|(known, _)| *known == id) {
            self.ids.push((id, placeholder.clone()));
        }
        for name in names {
            let cut: String = name.chars().take(SHOWN_CHARS).collect();
            // As logs write names, and as they write texts that quote names.
            let once = name.escape_debug().to_string();
            let twice = once.escape_debug().to_string();
            for form in [name, cut, once, twice] {
                if !self.words.iter().any(|(word, _)| word.eq_ignore_ascii_case(&form)) {
                    self.words.push((form, placeholder.clone()));
                }
            }
        }
    }

    /// A folder that gets a name of its own. Below it nothing is told, but of Potluck's: their placeholders end in `-folder`.
    pub(super) fn folder(&mut self, path: &str, placeholder: &str) {
        let path = path.trim_end_matches('/');
        if path.len() > 1 && path.starts_with('/') && !self.folders.iter().any(|(known, _)| known == path) {
            self.folders.push((path.to_owned(), placeholder.to_owned()));
        }
    }
}

fn is_telling(name: &str) -> bool {
    !name.is_empty() && !COMMON.iter().any(|common| common.eq_ignore_ascii_case(name))
}

/// Text of others in one line: no control characters, which would move a terminal's cursor or make up lines.
pub(super) fn clean(text: &str) -> String {
    let spaced = text.chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { c });
    spaced.filter(|c| !c.is_control()).collect()
}

/// `text` without what `names` has, and without paths of people, addresses, ids and links.
pub(super) fn redact(text: &str, mut names: Names) -> String {
    // The longest first: a name may be in another one.
    for list in [&mut names.words, &mut names.folders] {
        list.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }
    let mut all = Redaction { names, numbers: HashMap::new(), counts: HashMap::new() };
    all.rewrite(text, true)
}

struct Redaction {
    names: Names,
    /// Placeholders of what was recognised by its shape.
    numbers: HashMap<(&'static str, String), usize>,
    counts: HashMap<&'static str, usize>,
}

/// A place in the text; nothing in front of it is looked at but the last character.
#[derive(Clone, Copy)]
struct At<'a> {
    rest: &'a str,
    /// A word may begin here.
    begins: bool,
}

impl Redaction {
    /// One pass: what was put in is not looked at again. Without `shapes` paths and addresses stay.
    fn rewrite(&mut self, text: &str, shapes: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut begins) = (text, true);
        while let Some(next) = rest.chars().next() {
            let at = At { rest, begins };
            let found = match shapes {
                true => self.link(at).or_else(|| self.folder(at)),
                false => None,
            };
            let found = found.or_else(|| self.name(at, |name| !looks_like_number(name)));
            let found = match shapes {
                true => found.or_else(|| self.path(at)).or_else(|| self.address(at)),
                false => found,
            };
            let found = found.or_else(|| self.id(at));
            let found = match shapes {
                true => found.or_else(|| self.source(at)).or_else(|| self.host(at)),
                false => found,
            };
            if let Some((len, placeholder)) = found.or_else(|| self.name(at, looks_like_number)) {
                out.push_str(&placeholder);
                (rest, begins) = (&rest[len..], true);
            } else {
                out.push(next);
                (rest, begins) = (&rest[next.len_utf8()..], !next.is_alphanumeric());
            }
        }
        out
    }

    /// The same text gets the same number.
    fn number(&mut self, word: &'static str, text: &str) -> String {
        let next = &mut self.counts;
        let number = *self.numbers.entry((word, text.to_owned())).or_insert_with(|| {
            let count = next.entry(word).or_default();
            *count += 1;
            *count
        });
        format!("{word}-{number}")
    }

    fn link(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let start = at.rest.get(..5).filter(|start| at.begins && start.eq_ignore_ascii_case("pool:"))?;
        let len = at.rest.find(|c: char| c.is_whitespace() || "\"'`<>(),\\".contains(c)).unwrap_or(at.rest.len());
        (len > start.len()).then(|| (len, self.number("invite-link", &at.rest[..len])))
    }

    fn folder(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let bytes = at.rest.as_bytes().first().filter(|first| at.begins && matches!(first, b'/' | b'~'))?;
        if *bytes == b'~' {
            let rest = path_token(&at.rest[1..]);
            let below = self.below_home(rest)?;
            return Some((1 + rest.len(), format!("~{below}")));
        }
        let (path, placeholder) = self.names.folders.iter().find(|(path, _)| {
            at.rest.strip_prefix(path.as_str()).is_some_and(|rest| {
                let token = path_token(rest);
                token.is_empty() || token.starts_with('/')
            })
        })?;
        let (len, placeholder) = (path.len(), placeholder.clone());
        let rest = path_token(&at.rest[len..]);
        let below = match placeholder.as_str() {
            "~" => self.below_home(rest).unwrap_or_default(),
            own if own.ends_with("-folder") && rest.split('/').count() <= 3 && extension(rest).is_none() => {
                self.rewrite(rest, false)
            }
            _ if rest.is_empty() => String::new(),
            _ => self.folded(rest),
        };
        Some((len + rest.len(), placeholder + &below))
    }

    /// What comes after the home folder. None: it is no path.
    fn below_home(&mut self, rest: &str) -> Option<String> {
        let own = ["/.config/potluck", "/.local/state/potluck", "/.cache/potluck"];
        match rest {
            "" => None,
            _ if !rest.starts_with('/') => None,
            _ if own.iter().any(|own| rest.starts_with(own)) && rest.split('/').count() < 7 => {
                Some(self.rewrite(rest, false))
            }
            _ => Some(self.folded(rest)),
        }
    }

    fn folded(&mut self, path: &str) -> String {
        if path == "/" {
            return path.to_owned();
        }
        let end = extension(path).map_or(String::new(), |ext| format!(".{ext}"));
        format!("/{}{end}", self.number("path", path))
    }

    /// A name in `rest`, if it `fits`.
    fn name(&self, at: At<'_>, fits: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let is_here = |name: &str| {
            let found = at.rest.as_bytes().get(..name.len()).is_some_and(|s| s.eq_ignore_ascii_case(name.as_bytes()));
            let ends = || !at.rest[name.len()..].starts_with(char::is_alphanumeric);
            found && (name.len() >= INSIDE_WORDS_BYTES || (at.begins && ends()))
        };
        let (name, placeholder) = self.names.words.iter().find(|(name, _)| fits(name) && is_here(name))?;
        Some((name.len(), placeholder.clone()))
    }

    fn path(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let token = path_token(at.rest);
        if !at.begins || token.len() < 2 || !token.starts_with('/') {
            return None;
        }
        if token.starts_with("//") {
            return Some((2, "//".to_owned()));
        }
        let is_of =
            |list: &[&str]| list.iter().any(|start| token.starts_with(start) || token == &start[..start.len() - 1]);
        if is_of(SYSTEM) && !is_of(NOT_SYSTEM) {
            return Some((token.len(), self.rewrite(token, false)));
        }
        let folded = self.folded(token);
        Some((token.len(), folded))
    }

    /// An IP address, or one of a network card.
    fn address(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
        if !at.begins || !at.rest.starts_with(is_part) {
            return None;
        }
        let run = at.rest.find(|c| !is_part(c)).unwrap_or(at.rest.len()).min(ADDRESS_BYTES_MAX);
        let ends = |len: &usize| !at.rest[*len..].starts_with(char::is_alphanumeric);
        for len in (2..=run).rev().filter(ends) {
            let text = &at.rest[..len];
            let placeholder = match text.parse::<IpAddr>() {
                // Every address, which is none.
                Ok(ip) if ip.is_unspecified() => text.to_owned(),
                Ok(ip) if ip.is_loopback() => "loopback".to_owned(),
                // An IPv4 address is the same one inside IPv6.
                Ok(ip) => self.address_number(&ip.to_canonical().to_string()),
                Err(_) if is_mac(text) => self.address_number(&text.to_ascii_lowercase()),
                Err(_) => continue,
            };
            return Some((len, placeholder));
        }
        None
    }

    /// Numbers of addresses go on where those of the known ones end.
    fn address_number(&mut self, text: &str) -> String {
        let known = self.names.counts.get(&Kind::Address).copied().unwrap_or(0);
        let count = self.counts.entry("address").or_insert(known);
        *count = (*count).max(known);
        self.number("address", text)
    }

    fn id(&mut self, at: At<'_>) -> Option<(usize, String)> {
        if !at.begins {
            return None;
        }
        let len = at.rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(at.rest.len());
        let word = at.rest[..len].to_ascii_lowercase();
        if len < SHORTEST_ID || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        if let Some((_, placeholder)) = self.names.ids.iter().find(|(id, _)| id.starts_with(&word)) {
            return Some((len, placeholder.clone()));
        }
        // In milliseconds, times have 13 digits.
        (len == SHORT_ID || len >= 16).then(|| (len, self.number("id", &word[..SHORT_ID])))
    }

    /// A source or an object by its end.
    fn source(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let token = path_token(at.rest);
        let ext = extension(token).filter(|_| at.begins)?;
        Some((token.len(), format!("{}.{ext}", self.number("path", token))))
    }

    /// A host name before a port, or in a private network.
    fn host(&mut self, at: At<'_>) -> Option<(usize, String)> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let run = at.rest.find(|c| !is_part(c)).unwrap_or(at.rest.len());
        let word = at.rest[..run].trim_end_matches('.');
        if !at.begins || word.is_empty() {
            return None;
        }
        let lower = word.to_ascii_lowercase();
        let port = at.rest[run..].strip_prefix(':').unwrap_or_default();
        let port = &port[..port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len())];
        let last = lower.rsplit_once('.').map_or("", |(_, last)| last);
        let is_domain = last.len() >= 2 && last.bytes().all(|b| b.is_ascii_alphabetic()) && !OWN_FILES.contains(&last);
        let is_host = PRIVATE_HOSTS.iter().any(|end| lower.ends_with(end) && lower.len() > end.len())
            || (is_domain && (2..=5).contains(&port.len()))
            || (port == PORT_USUAL && word.bytes().any(|b| b.is_ascii_alphabetic()) && lower != "localhost");
        is_host.then(|| (word.len(), self.address_number(&lower)))
    }
}

/// Could be part of an address or an id: those come first.
fn looks_like_number(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The path at the beginning of a text, as far as a text shows where it ends.
fn path_token(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || "\"'`,;:()<>[]{}|=*?!\\".contains(c)).unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// Of a source or an object.
fn extension(path: &str) -> Option<&str> {
    let (stem, ext) = path.rsplit('/').next()?.rsplit_once('.')?;
    (!stem.is_empty() && SOURCES.contains(&ext)).then_some(ext)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00c8ab0f9d2e4455667788990011223344556677889900aabbccddeeff001122";

    fn names() -> Names {
        let mut names = Names::default();
        names.add(Kind::Pc, ID, &["gustavs-pc", "gustavs-pc.example.org"]);
        names.add(Kind::Pc, "", &["tom"]);
        names.add(Kind::Team, "", &["Kernel lab"]);
        names.add(Kind::User, "", &["gustav", "Gustav O'Mann"]);
        names.add(Kind::Project, "", &["wine-secret"]);
        names.add(Kind::Address, "", &["build.example.com"]);
        names.folder("/data/state/potluck", "state-folder");
        names.folder("/home/gustav", "~");
        names
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(redact(text, names()), expected, "{text}");
    }

    #[test]
    fn known_names_go_the_longest_first_and_short_ones_only_as_words() {
        check("gustavs-pc.example.org, Gustavs-PC and gustav", "pc-1, pc-1 and user-1");
        check("tom's PC: bottom tomorrow tom-laptop TOM", "pc-2's PC: bottom tomorrow pc-2-laptop pc-2");
        check("team Kernel lab, kernel 6.1.0-18-amd64", "team team-1, kernel 6.1.0-18-amd64");
        check("mywine-secrets", "myproject-1s");
    }

    #[test]
    fn names_that_logs_have_escaped_are_found() {
        check(r"Gustav O'Mann, Gustav O\'Mann, Gustav O\\\'Mann", "user-1, user-1, user-1");
    }

    #[test]
    fn a_placeholder_is_not_looked_at_again() {
        let mut names = names();
        names.add(Kind::Project, "", &["pc", "1"]);
        assert_eq!(redact("gustavs-pc pc 1", names), "pc-1 project-2 project-2");
    }

    #[test]
    fn words_that_name_nobody_stay() {
        let mut names = Names::default();
        names.add(Kind::User, "", &["root"]);
        names.add(Kind::Pc, "", &["", "Debian", "localhost"]);
        assert_eq!(redact("Debian root localhost", names), "Debian root localhost");
    }

    #[test]
    fn one_pc_has_one_placeholder_by_name_id_and_beginnings_of_the_id() {
        check(&format!("{ID} {} {} gustavs-pc", &ID[..12], &ID[..8]), "pc-1 pc-1 pc-1 pc-1");
        let other = "ff".repeat(32);
        check(&format!("{other} {} {}", &other[..12], "ab".repeat(16)), "id-1 id-1 id-2");
        check("at 1732287341.123, 1732287341123 ms, deadbeef", "at 1732287341.123, 1732287341123 ms, deadbeef");
    }

    #[test]
    fn paths_of_people_are_folded_and_those_of_the_system_stay() {
        check("/home/gustav, /home/gustav/x/a.c:12: /home/gustav.", "~, ~/path-1.c:12: ~.");
        check("/home/gustav/.config/potluck/config.toml", "~/.config/potluck/config.toml");
        check("/home/gustav2/x /srv/acme/tool /srv/acme/tool", "/path-1 /path-2 /path-2");
        check(
            "/usr/bin/gcc-12 /usr/include/stdio.h /usr/src/acme/x.c",
            "/usr/bin/gcc-12 /usr/include/stdio.h /path-1.c",
        );
        check("/usr/share/wine-secret/x", "/usr/share/project-1/x");
        check("/data/state/potluck/node.log: no", "state-folder/node.log: no");
        check("/data/state/potluck/mirrors/x/home/bob/s", "state-folder/path-1");
        check(
            "src/main.cpp failed, -o=lib/x.o; see node.log, i.e. 1/2 of 0.5 s",
            "path-1.cpp failed, -o=path-2.o; see node.log, i.e. 1/2 of 0.5 s",
        );
        check("wine-secret/dlls/x.c xwine-secretfoo.c", "project-1/path-1.c path-2.c");
        check("file:///home/bob/x \"/home/bob/x\"", "file:///path-1 \"/path-1\"");
    }

    #[test]
    fn addresses_go_by_what_they_are_and_ports_stay() {
        check("192.0.2.17:10555, 192.0.2.17. [::ffff:192.0.2.17]:1", "address-2:10555, address-2. [address-2]:1");
        check("[fe80::1%eth0]:10555 2001:DB8::7 2001:db8:0::7", "[address-2%eth0]:10555 address-3 address-3");
        check("127.0.0.1:4 [::1]:4 0.0.0.0:4 [::]:4", "loopback:4 [loopback]:4 0.0.0.0:4 [::]:4");
        check(
            "aa:bb:cc:00:11:22 14:55:41 gcc 12.2.0 std::string 0.1.0",
            "address-2 14:55:41 gcc 12.2.0 std::string 0.1.0",
        );
        check("build.example.com:10555 other.example.net:80", "address-1:10555 address-2:80");
        check(
            "printer.local x.fritz.box old-pc:10555 config.toml:12",
            "address-2 address-3 address-4:10555 config.toml:12",
        );
    }

    #[test]
    fn links_go_whole() {
        let link = format!("pool:join?team={ID}&via=192.0.2.17:10555&id={ID}&s={}", "ab".repeat(16));
        check(&format!("\"{link}\" {link}, pool: 2"), "\"invite-link-1\" invite-link-1, pool: 2");
    }

    #[test]
    fn text_of_others_stays_in_its_line_and_moves_no_cursor() {
        assert_eq!(clean("a\nb\x1b[2J\tc"), "a b[2J c");
    }

    #[test]
    fn letters_of_any_script_pass() {
        check("größe 💡 Привет tom", "größe 💡 Привет pc-2");
    }
}
