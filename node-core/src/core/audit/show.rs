//! What is shown of all this, and what a person can do about it.

use potluck_api::view::{FixAction, TrustView, WrongView};
use potluck_model::ids::NodeId;
use serde_json::{Value, json};

use super::super::Core;
use super::super::problems::Found;
use super::kept::Finding;
use super::made::State;
use super::now_ms;
use potluck_model::trust::Why;

/// Why a peer gets nothing: nobody says that it meant to.
pub(super) const WRONG: &str = "It gave a wrong result";

fn words(why: &Why) -> String {
    match why {
        Why::Confirmed => "This computer and another one both made something else of the same source.".to_owned(),
        Why::Alone => {
            "This computer made something else of the same source, twice; there was no other to ask.".to_owned()
        }
        Why::Members(n) => format!("{n} members of the team were given wrong results by it."),
    }
}

impl Core {
    /// A problem for each peer that is put aside, and for files of it that are still there.
    pub(in super::super) fn wrong_problems(&self) -> Vec<Found> {
        let holds = |finding: &&Finding| self.quarantine_of(finding.peer).is_some() || self.has_affected(finding);
        let of = |finding: &Finding| {
            let files = if finding.is_settled { 0 } else { finding.affected.len() };
            let mut detail = words(&finding.why);
            if self.quarantine_of(finding.peer).is_some() {
                detail += " It gets no jobs for a day.";
            }
            let action = if files > 0 {
                detail += &format!(" {files} files of the last builds came from it.");
                FixAction::Call { json: json!({"call": "audit_rebuild"}).to_string() }
            } else {
                FixAction::View { name: format!("machines/{}", finding.peer) }
            };
            Found { code: if files > 0 { "Q1" } else { "Q2" }, about: finding.name.clone(), detail, action }
        };
        self.audit.findings.iter().filter(holds).map(of).collect()
    }

    fn has_affected(&self, finding: &Finding) -> bool {
        !finding.is_settled && !finding.affected.is_empty()
    }

    /// The part of the snapshot.
    pub(in super::super) fn trust_view(&self) -> TrustView {
        let wrong = self.audit.findings.iter().map(|finding| WrongView {
            peer: finding.peer.to_string(),
            name: finding.name.clone(),
            at_ms: finding.at_ms,
            until_ms: self.quarantine_of(finding.peer).map(|q| q.until_ms),
            why: words(&finding.why),
            source: finding.source.as_ref().map(|path| path.display().to_string()),
            files: if finding.is_settled { 0 } else { finding.affected.len() as u32 },
        });
        TrustView {
            settings: self.sharing.shared.values.trust.clone(),
            compared: self.audit.counts.compared,
            agreed: self.audit.counts.agreed,
            waiting: self.audit.open_cases() as u32,
            wrong: wrong.collect(),
        }
    }

    /// `potluck audit`.
    pub(in super::super) fn audit_view(&self) -> Value {
        let peers = self.audit.standings.iter().map(|(peer, standing)| {
            let name = self.peers.get(peer).map(|p| super::super::view::name_of(p, *peer)).unwrap_or_default();
            let signs = self.peers.get(peer).and_then(|p| p.hello.as_ref());
            let signs = signs.is_none_or(|h| h.abilities.iter().any(|a| a == super::SIGNED_ABILITY));
            json!({
                "id": peer.to_string(),
                "name": super::super::snapshot::shown_name(&name),
                "agreed": standing.agreed(),
                "doubtful": standing.is_doubtful(),
                "signs": signs,
                "rate": standing.rate(signs),
                "quarantine": standing.quarantine(now_ms()),
                "accusers": self.audit.accusations.accusers(*peer),
            })
        });
        let findings = self.audit.findings.iter().map(|finding| {
            let files = finding.affected.iter().map(|output| {
                let state = match output.state() {
                    State::AsMade => "as-made",
                    State::Changed => "changed",
                    State::Gone => "gone",
                };
                json!({"path": output.path.display().to_string(), "state": state})
            });
            json!({
                "peer": finding.peer.to_string(),
                "name": finding.name,
                "at_ms": finding.at_ms,
                "why": words(&finding.why),
                "source": finding.source.as_ref().map(|path| path.display().to_string()),
                "settled": finding.is_settled,
                "files": files.collect::<Vec<_>>(),
            })
        });
        json!({
            "trust": self.sharing.shared.values.trust,
            "counts": self.audit.counts,
            "waiting": self.audit.open_cases(),
            "running": self.audit.active.is_some(),
            "peers": peers.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    /// Removes what wrong peers made and what is still as they made it, so that the next build makes it anew.
    pub(in super::super) fn audit_rebuild(&mut self) -> Value {
        let (mut removed, mut changed, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for finding in self.audit.findings.iter_mut().filter(|finding| !finding.is_settled) {
            let before = failed.len();
            for output in &finding.affected {
                let path = output.path.display().to_string();
                match output.remove() {
                    Ok(State::AsMade) => removed.push(path),
                    Ok(State::Changed) => changed.push(path),
                    Ok(State::Gone) => {}
                    Err(error) => failed.push(format!("{path}: {error}")),
                }
            }
            finding.is_settled = failed.len() == before;
        }
        self.audit.kept.touch_now();
        self.watch.touch();
        json!({"ok": true, "removed": removed, "changed": changed, "failed": failed})
    }

    /// The person lets a peer work again.
    pub(in super::super) fn audit_forgive(&mut self, node: &str) -> Value {
        let named = |peer: &&NodeId| peer.to_string().starts_with(node) && node.len() >= 8;
        let listed = |finding: &&Finding| finding.name == node;
        let by_name = self.audit.findings.iter().find(listed).map(|finding| finding.peer);
        let by_id = self.audit.standings.keys().find(named).copied();
        let Some(peer) = by_id.or_else(|| crate::identity::read(node).ok()).or(by_name) else {
            return json!({"error": format!("nothing is known of {node}\nhint: potluck audit lists all")});
        };
        self.audit.standing(peer).forgive();
        self.audit.accusations.forget(peer);
        self.end_quarantines();
        self.audit.kept.touch_now();
        self.watch.touch();
        json!({"ok": true, "peer": peer.to_string()})
    }
}
