//! States that a test or a demonstration raises by name.

use potluck_api::view::{HeldReason, MachineState, NearbyTeam, SyncState, UserRole};

use super::random::Random;
use super::sharing::Person;
use super::world::World;
use super::{builds, pool, trouble};

/// All of them, in the order in which they are offered.
pub(super) const NAMES: &[&str] = &[
    "empty",
    "donor",
    "developer",
    "clear",
    "helping",
    "user-input",
    "user-away",
    "lock",
    "building",
    "build-done",
    "own-build",
    "finishing",
    "paused",
    "battery",
    "schedule",
    "cpu-busy",
    "memory",
    "asking",
    "many-machines",
    "hostile-names",
    "N1",
    "N2",
    "N3",
    "N4",
    "V1",
    "S1",
    "D1",
    "M1",
    "T1",
    "C1",
    "K1",
    "A1",
];

impl World {
    /// Raises a scene. From the first one on nothing begins by itself.
    pub(super) fn scene(&mut self, name: &str) -> Result<(), String> {
        if !NAMES.contains(&name) {
            let all = NAMES.join(", ");
            return Err(format!("no scene is called so\nhint: {all}"));
        }
        self.automatic = None;
        self.touch();
        match name {
            "empty" => self.empty(),
            "donor" => self.settle(UserRole::Donor),
            "developer" => self.settle(UserRole::Developer),
            "clear" => self.clear(),
            "helping" => self.help(),
            "user-input" => {
                self.share.input(self.now);
                self.take_one_back();
            }
            "user-away" => self.share.person = Person::Away,
            "lock" => self.share.person = Person::Locked(self.now),
            "building" => self.begin(builds::WINE, 24_000),
            "build-done" => self.finish(),
            "own-build" => {
                self.share.person = Person::Away;
                self.begin(builds::LINUX, 12_000);
            }
            "finishing" => {
                self.help();
                self.share.pause(potluck_api::call::Pause::Finish, self.now, 0);
            }
            "paused" => {
                self.share.switch(true);
                self.share.pause(potluck_api::call::Pause::For(3600), self.now, 0);
            }
            "battery" => self.hold(HeldReason::Battery),
            "schedule" => self.hold(HeldReason::Schedule),
            "cpu-busy" => self.hold(HeldReason::CpuBusy),
            "memory" => self.hold(HeldReason::Memory),
            "asking" => {
                self.ensure_team();
                self.ask("lab-09");
            }
            "many-machines" => {
                self.many(pool::office);
                self.begin(builds::STORM, 5_000);
            }
            "hostile-names" => self.hostile(),
            code => self.trouble(code),
        }
        Ok(())
    }

    /// Nothing was chosen yet: onboarding.
    fn empty(&mut self) {
        self.settle(UserRole::Donor);
        self.role = None;
        self.team = None;
        self.share.on = false;
        self.share.forget_lent();
        self.pcs.clear();
        self.received.clear();
        self.tools.clear();
        self.recent.clear();
        self.addresses.clear();
        let mut random = Random::new(self.seed, "nearby");
        self.nearby = [("Kernel lab", 7), ("Graphics", 3)]
            .map(|(name, computers)| NearbyTeam { id: random.id(), name: name.into(), computers })
            .into();
    }

    /// All is well and nothing moves.
    fn clear(&mut self) {
        self.raised.clear();
        self.live = None;
        self.share.held = None;
        self.share.blocked = None;
        self.share.wants.clear();
        self.share.switch(self.share.on);
        for pc in &mut self.pcs {
            pc.online = true;
            pc.taken_until = None;
            if pc.version != pool::VERSION {
                pc.version = pool::VERSION.to_owned();
                pc.be(MachineState::Sharing, "Sharing");
            }
        }
        for tool in &mut self.tools {
            tool.error = None;
        }
        if let Some(team) = &mut self.team {
            team.asking.clear();
        }
    }

    fn ensure_team(&mut self) {
        if self.team.is_none() {
            self.settle(self.role.unwrap_or(UserRole::Donor));
        }
    }

    /// The person is away and two colleagues have work.
    fn help(&mut self) {
        self.ensure_team();
        self.live = None;
        self.share.switch(true);
        (self.share.held, self.share.blocked, self.share.person) = (None, None, Person::Away);
        self.share.wants = vec![("mara-desk".into(), 4), ("jan-laptop".into(), 3)];
        // They are here at once, not with the next step.
        self.share.step(self.now, 0, false, &mut self.random);
    }

    /// Away and held by what the machine does.
    fn hold(&mut self, reason: HeldReason) {
        self.ensure_team();
        self.live = None;
        self.share.switch(true);
        (self.share.held, self.share.person) = (Some(reason), Person::Away);
        self.share.wants.clear();
    }

    fn many(&mut self, make: fn(&mut Random) -> Vec<pool::Pc>) {
        self.ensure_team();
        self.live = None;
        self.pcs = make(&mut Random::new(self.seed, "many"));
        let wall = self.wall();
        for (number, pc) in self.pcs.iter_mut().enumerate() {
            pc.seen_ms = wall;
            pc.role = if number == 0 { "keeper" } else { "member" };
        }
        for tool in &mut self.tools {
            tool.meet(&self.pcs, SyncState::Ready);
        }
    }

    fn hostile(&mut self) {
        self.many(pool::hostile);
        let names: Vec<String> = self.pcs.iter().map(|pc| pc.name.clone()).collect();
        for name in names.iter().take(2) {
            self.ask(name);
        }
        let mut random = Random::new(self.seed, "hostile");
        self.nearby =
            names.iter().take(4).map(|n| NearbyTeam { id: random.id(), name: n.clone(), computers: 3 }).collect();
        self.help();
        self.share.wants = names.iter().take(3).map(|n| (n.clone(), 2)).collect();
        self.share.step(self.now, 0, false, &mut self.random);
        self.tell(&format!("{} wants to join.", names[0]), Some("machines".into()));
    }

    fn trouble(&mut self, code: &str) {
        let Some(row) = trouble::row(code) else { return };
        self.ensure_team();
        let since = self.wall();
        if !self.raised.iter().any(|(c, _)| *c == row.code) {
            self.raised.push((row.code, since));
        }
        match row.code {
            "N1" | "N4" => self.pcs.iter_mut().for_each(|pc| pc.online = false),
            "S1" => self.share.blocked = Some("S1"),
            "D1" => self.share.held = Some(HeldReason::Disk),
            "M1" => self.share.held = Some(HeldReason::Memory),
            "V1" => {
                if let Some(pc) = self.pcs.iter_mut().find(|pc| pc.name == "old-nuc") {
                    pc.version = "0.0.3".into();
                    pc.be(MachineState::Unavailable, "Older version (0.0.3)");
                }
            }
            "T1" => {
                if let Some(tool) = self.tools.first_mut() {
                    tool.error = Some("cc1plus needs libisl.so.23, which was not found next to the compiler.".into());
                }
            }
            _ => {}
        }
    }
}
