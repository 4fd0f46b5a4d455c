//! `make damage`: state files that are ruined in every way, and nodes that are killed at any moment of a build. No build
//! fails, no object is wrong, key and team are never lost or made anew without a word, and whatever refuses to start says
//! what to do.

mod files;
mod kills;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;

/// Ruins files and kills nodes.
#[derive(Parser)]
struct Args {
    /// Parts: files, kills.
    #[arg(long, value_delimiter = ',', default_values = ["files", "kills"])]
    parts: Vec<String>,
    /// Only files whose path contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Every way for each file alone takes most of an hour; this takes all files at once in each way, and only key and
    /// team alone.
    #[arg(long)]
    short: bool,
    /// Programs that are killed.
    #[arg(long, default_value_t = 500)]
    kills: usize,
    /// What is random follows from it; without it another one each time.
    #[arg(long)]
    seed: Option<u64>,
}

/// What a run has shown.
#[derive(Default)]
struct Tally {
    /// Ruined files that a node was started with.
    ruined: usize,
    /// Of them, those with which a node did not start, and said why.
    refused: usize,
    /// Programs that were killed.
    kills: usize,
    /// Objects that were compared.
    objects: usize,
    /// Of them, those of another PC, as far as the submitter's node lived to say so.
    remote: u64,
    missed: Vec<String>,
}

impl Tally {
    /// Said at once, because a long run may be cut short, and again at its end.
    fn miss(&mut self, what: String) {
        println!("missed: {what}");
        self.missed.push(what);
    }
}

fn main() {
    let args = Args::parse();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = args.seed.unwrap_or(clock);
    println!("seed {seed}");
    let mut tally = Tally::default();
    let has = |part: &str| args.parts.iter().any(|p| p == part);
    if has("files")
        && let Err(e) = files::all(&args, seed, &mut tally)
    {
        tally.miss(e.to_string());
    }
    if has("kills")
        && let Err(e) = kills::all(&args, seed, &mut tally)
    {
        tally.miss(e.to_string());
    }
    println!("{}", if tally.missed.is_empty() { "nothing missed" } else { "all that was missed:" });
    tally.missed.iter().for_each(|m| println!("missed: {m}"));
    let is_ok = tally.missed.is_empty() && tally.objects > 0;
    println!(
        "damage: {}: {} ruined files ({} refused with a sentence), {} kills, {} objects compared, {} remote, {} missed; seed {seed}",
        if is_ok { "ok" } else { "FAILED" },
        tally.ruined,
        tally.refused,
        tally.kills,
        tally.objects,
        tally.remote,
        tally.missed.len(),
    );
    std::process::exit(i32::from(!is_ok));
}
