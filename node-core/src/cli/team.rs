//! `potluck team`: founding, inviting, joining, asking, and who belongs to the team.

use std::io::IsTerminal;

use clap::Subcommand;
use serde_json::{Value, json};

use super::show::{list, text};
use super::{Failure, call, call_each, duration_s};

const NO_TEAM: &str = "this PC is in no team\nhint: potluck team create NAME, or potluck team join LINK";

#[derive(Subcommand)]
pub(super) enum Team {
    /// Found a team
    Create {
        /// Its name
        name: String,
    },
    /// Make a link that lets another PC join
    Invite {
        /// How many PCs may use it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        uses: u32,
        /// How long it is good, such as 30m, 24h or 7d
        #[arg(long, default_value = "24h", value_parser = duration_s)]
        expires: u64,
        /// Ask a keeper about each PC [default: with more than one use]
        #[arg(long, overrides_with = "no_approve")]
        approve: bool,
        /// Let every PC in that has the link
        #[arg(long, overrides_with = "approve")]
        no_approve: bool,
    },
    /// Take an invitation back
    Uninvite {
        /// Its number, as `potluck team list` shows it
        id: String,
    },
    /// Join a team with the link that somebody sent
    Join {
        /// The link
        link: String,
    },
    /// Ask a team to be taken in, without a link: by its name or at an address; alone, list the teams nearby
    Ask {
        /// Name of a team nearby, or HOST or HOST:PORT of one of its PCs
        team: Option<String>,
    },
    /// Give up joining
    Cancel,
    /// PCs that ask to be taken in
    Pending {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Let a PC in that asks, after comparing the pictures
    Approve {
        /// Its number or name, as `potluck team pending` shows them
        pc: String,
    },
    /// Do not let it in
    Decline {
        /// Its number or name, as `potluck team pending` shows them
        pc: String,
    },
    /// All members
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Give this PC another name
    Rename {
        /// The name
        name: String,
    },
    /// Take a PC out, for good
    Remove {
        /// Its name or id
        pc: String,
        /// Together with all PCs that it took in: for a keeper that was never to be trusted
        #[arg(long)]
        with_added: bool,
    },
    /// Get the team's list back from another PC of the team, if this PC has lost it
    Restore {
        /// HOST or HOST:PORT of a PC of the team [default: those that are known]
        address: Option<String>,
        /// Id of the team, if this PC has not founded it and cannot tell which it was
        #[arg(long, value_name = "ID")]
        team: Option<String>,
    },
    /// Leave the team, for good
    Leave {
        /// Even if nobody else can then take in or remove PCs
        #[arg(long)]
        force: bool,
    },
    /// Say what a PC may do
    Role {
        /// Its name or id
        pc: String,
        /// What it may do
        #[arg(value_parser = ["keeper", "member", "submit-only", "serve-only"])]
        role: String,
    },
    /// Vote for new keepers when all are gone: more than half of the members must name the same
    Recover {
        /// Names or ids of the new keepers
        #[arg(required = true)]
        pcs: Vec<String>,
        /// Days in which this PC has seen no keeper, at least 14
        #[arg(long, value_name = "DAYS")]
        unseen_days: u32,
    },
}

pub(super) fn run(command: Team) -> Result<(), Failure> {
    match command {
        Team::Create { name } => {
            call(&json!({"call": "team_create", "name": name}))?;
            println!("The team {name} exists. Invite others:\n  potluck team invite");
        }
        Team::Invite { uses, expires, approve, no_approve } => {
            let approve = if approve || no_approve { Some(approve) } else { None };
            let request = json!({"call": "team_invite", "uses": uses, "expires_s": expires, "approve": approve});
            invitation(&call(&request)?);
        }
        Team::Uninvite { id } => {
            let all = team_list()?;
            let fits: Vec<&Value> = list(&all["invites"]).iter().filter(|i| text(&i["id"]).starts_with(&id)).collect();
            let [one] = fits[..] else {
                return Err(Failure::from(format!(
                    "{} open invitations of this PC begin with {id}\nhint: potluck team list shows them",
                    fits.len()
                )));
            };
            call(&json!({"call": "team_uninvite", "id": one["id"]}))?;
            println!("The invitation is taken back; its link is worth nothing now.");
        }
        Team::Join { link } => joining(&json!({"call": "team_join", "link": link}))?,
        Team::Ask { team: None } => nearby()?,
        Team::Ask { team: Some(team) } => {
            let all = call(&json!({"call": "team_list"}))?;
            let known = list(&all["nearby"]).iter().find(|t| t["name"] == team.as_str() || t["id"] == team.as_str());
            joining(&match known {
                Some(known) => json!({"call": "team_ask", "nearby": known["id"]}),
                None => json!({"call": "team_ask_address", "address": team}),
            })?;
        }
        Team::Cancel => {
            call(&json!({"call": "team_join_cancel"}))?;
            println!("Joining was given up.");
        }
        Team::Pending { json } => {
            let all = team_list()?;
            if json {
                println!("{}", all["asking"]);
            } else if list(&all["asking"]).is_empty() {
                println!("nobody asks to be taken in");
            } else {
                pending(&all["asking"]);
            }
        }
        Team::Approve { pc } => {
            let (id, name) = asking(&pc)?;
            call(&json!({"call": "team_approve", "id": id}))?;
            println!("{name} is let in.");
        }
        Team::Decline { pc } => {
            let (id, name) = asking(&pc)?;
            call(&json!({"call": "team_decline", "id": id}))?;
            println!("{name} is not let in.");
        }
        Team::List { json } => {
            let answer = call(&json!({"call": "team_list"}))?;
            if json {
                println!("{answer}");
            } else if answer["joined"] == true {
                super::show::team(&answer);
                for invite in list(&answer["invites"]) {
                    let approve = if invite["approve"] == true { ", a keeper is asked" } else { "" };
                    println!("  invitation {:.8}: {} uses left{approve}", text(&invite["id"]), invite["uses_left"]);
                }
                pending(&answer["asking"]);
            } else {
                return Err(no_team());
            }
        }
        Team::Rename { name } => {
            call(&json!({"call": "team_rename", "name": name}))?;
            println!("This PC is called {name} now.");
        }
        Team::Remove { pc, with_added } => {
            let (id, name) = member(&team_list()?, &pc)?;
            call(&json!({"call": "team_remove", "node": id, "with_added": with_added}))?;
            println!("{name} is not in the team any more. To return it needs a new key.");
            if with_added {
                println!("Nor is any PC that it took in; those can be invited again with the keys that they have.");
            }
        }
        Team::Restore { address, team } => {
            joining(&json!({"call": "team_restore", "address": address, "team": team}))?;
        }
        Team::Leave { force } => {
            call(&json!({"call": if force { "team_abandon" } else { "team_leave" }}))?;
            println!("This PC has left the team. To return it needs a new key.");
        }
        Team::Role { pc, role } => {
            let (id, name) = member(&team_list()?, &pc)?;
            call(&json!({"call": "team_role", "node": id, "role": role}))?;
            println!("{name} is {role} now.");
        }
        Team::Recover { pcs, unseen_days } => {
            let all = team_list()?;
            let ids: Result<Vec<String>, Failure> = pcs.iter().map(|pc| Ok(member(&all, pc)?.0)).collect();
            call(&json!({"call": "team_recover", "keepers": ids?, "unseen_days": unseen_days}))?;
            println!(
                "This PC has voted. The new keepers are keepers as soon as more than half of the members have voted \
                 for the same."
            );
        }
    }
    Ok(())
}

fn no_team() -> Failure {
    Failure { exit: 4, text: NO_TEAM.to_owned() }
}

/// The team's list, of a PC that is in one.
fn team_list() -> Result<Value, Failure> {
    let all = call(&json!({"call": "team_list"}))?;
    if all["joined"] == true { Ok(all) } else { Err(no_team()) }
}

fn invitation(answer: &Value) {
    let link = text(&answer["link"]);
    // Half blocks can be scanned only in the right colours, and a file has none.
    if std::io::stdout().is_terminal() {
        print!("{}", crate::qr::on_terminal(text(&answer["qr_text"])));
    }
    if answer["approve"] == true {
        println!("You will be asked about each PC that comes: potluck team pending");
    }
    println!("On the other PC, with Potluck running there (a shell needs the quotes):");
    println!("  potluck team join '{link}'\nThe link alone:\n{link}");
}

fn pictures(check: &Value) -> String {
    let words = list(check).iter().map(|c| format!("{} {}", text(&c["picture"]), text(&c["word"])));
    words.collect::<Vec<_>>().join("   ")
}

/// Shows each step up to the end.
fn joining(request: &Value) -> Result<(), Failure> {
    call_each(request, |step| match text(&step["is"]) {
        "connecting" if step["busy"] == true => eprintln!("The team's PC has no time at this moment; asking again …"),
        "connecting" => eprintln!("Looking for the team …"),
        "waiting" => {
            println!(
                "A keeper of {} must let this PC in. On the keeper's screen must be the same:",
                text(&step["team"])
            );
            println!("\n    {}\n", pictures(&step["check"]));
            println!("If they differ, somebody sits in between: press Ctrl-C, then potluck team cancel");
        }
        "joined" => {
            if !list(&step["check"]).is_empty() {
                println!("The keeper's side showed: {}", pictures(&step["check"]));
            }
            println!("This PC is now in the team {}.", text(&step["team"]));
        }
        _ => {}
    })
}

fn nearby() -> Result<(), Failure> {
    let all = call(&json!({"call": "team_list"}))?;
    if list(&all["nearby"]).is_empty() {
        println!("no other team is seen on this network; ask at an address: potluck team ask HOST");
    }
    for team in list(&all["nearby"]) {
        println!("{:<32} {} computers", text(&team["name"]), team["computers"]);
    }
    Ok(())
}

fn pending(asking: &Value) {
    for ask in list(asking) {
        let how = if ask["invited"] == true { "with an invitation" } else { "without an invitation" };
        println!("{}  {} wants to join, from {}, {how}", text(&ask["id"]), text(&ask["name"]), text(&ask["address"]));
        println!("    its screen must show: {}", pictures(&ask["check"]));
        println!("    potluck team approve {0}   or   potluck team decline {0}", text(&ask["id"]));
    }
}

/// Number and name of who asks.
fn asking(wanted: &str) -> Result<(String, String), Failure> {
    let all = team_list()?;
    let asking = list(&all["asking"]);
    let by_id: Vec<&Value> = asking.iter().filter(|a| a["id"] == wanted).collect();
    let fits = if by_id.is_empty() { asking.iter().filter(|a| a["name"] == wanted).collect() } else { by_id };
    match fits[..] {
        [one] => Ok((text(&one["id"]).to_owned(), text(&one["name"]).to_owned())),
        [] => Err(Failure::from(format!(
            "{wanted} does not ask to be taken in\nhint: potluck team pending shows who does"
        ))),
        _ => Err(Failure::from(format!(
            "several PCs called {wanted} ask\nhint: give the number; potluck team pending shows it"
        ))),
    }
}

/// Id and name of a member by its name, its id, or the beginning of it.
fn member(all: &Value, wanted: &str) -> Result<(String, String), Failure> {
    let members = list(&all["members"]);
    let shown = crate::identity::read(wanted).ok().map(|id| id.to_string());
    let named: Vec<&Value> = members.iter().filter(|m| m["name"] == wanted).collect();
    let is_id = |m: &&Value| {
        let id = text(&m["id"]);
        shown.as_deref() == Some(id) || (wanted.len() >= 6 && id.starts_with(&wanted.to_ascii_lowercase()))
    };
    let fits = if named.is_empty() { members.iter().filter(is_id).collect() } else { named };
    match fits[..] {
        [one] => Ok((text(&one["id"]).to_owned(), text(&one["name"]).to_owned())),
        [] => Err(Failure::from(format!("{wanted} is not in the team\nhint: potluck team list shows names and ids"))),
        _ => Err(Failure::from(format!(
            "several PCs are called {wanted}\nhint: give the id; potluck team list shows it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pc_is_named_by_a_unique_name_or_by_its_id() {
        let id = |n: char| n.to_string().repeat(64);
        let all = json!({"members": [
            {"id": id('a'), "name": "lab"}, {"id": id('b'), "name": "lab"}, {"id": id('c'), "name": "tower"},
        ]});
        let named = |wanted: &str| member(&all, wanted).map(|found| found.0).map_err(|failure| failure.text);
        assert_eq!(named("tower"), Ok(id('c')));
        assert_eq!(named("AAAAAA"), Ok(id('a')));
        assert!(named("lab").unwrap_err().contains("several"));
        assert!(named("aaa").unwrap_err().contains("not in the team"), "too short to be meant");
        let node = potluck_model::ids::NodeId([0xbb; 32]);
        assert_eq!(named(&crate::identity::show(node)), Ok(id('b')));
    }
}
