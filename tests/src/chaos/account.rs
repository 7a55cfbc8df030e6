//! What was sent, what is stored and what was claimed, held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use kvs::RunId;
use kvs::identity::Sha256Sum;
use messages::{Gap, Upload, Verdict, Verify};
use serde_json::Value;

use super::schedule::CAMERAS;
use super::storm::{Storm, messages_time};
use crate::cloud::Stored;
use crate::footage::{Sent, compare};

/// What the accounts say when they agree.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub fragments: usize,
    pub pictures: usize,
    pub sent: usize,
    /// Lives of the process and cameras in them.
    pub runs: usize,
    pub kills: u64,
    pub cuts: u64,
    /// Of single stages.
    pub panics: usize,
    /// Refused by the cloud for good, as the schedule wanted it.
    pub refused: usize,
    /// Claims that were looked up: persisted, and identical.
    pub claims: usize,
    /// Minutes of cameras that are written down, and of these those that are called proven.
    pub minutes: usize,
    pub proven: usize,
    /// Longest stretch at the end of a session of a camera that is not stored: what was recorded when the box died.
    pub longest_tail_ms: u64,
    pub recoveries: Vec<Duration>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fragments, pictures, sent, runs, kills, cuts, panics, .. } = self;
        let Self { refused, claims, minutes, proven, longest_tail_ms, .. } = self;
        write!(
            f,
            "{fragments} fragments with {pictures} of {sent} pictures stored, of {runs} runs, {kills} kills, {cuts} cuts and \
             {panics} panics of a stage; {refused} refused for good; {claims} claims looked up; {minutes} minutes written down, \
             {proven} of them proven; longest end of a session that is not stored \
             {longest_tail_ms} ms"
        )?;
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_unstable();
        match recoveries[..] {
            [] => Ok(()),
            [.., longest] => write!(
                f,
                "; recovery p50 {} ms, longest {} ms",
                recoveries[recoveries.len() / 2].as_millis(),
                longest.as_millis()
            ),
        }
    }
}

impl Storm {
    /// After [`settle`](Self::settle): what it comes to, when the accounts agree.
    ///
    /// # Errors
    /// Where they do not.
    pub async fn accounts(&self) -> Result<Figures, Vec<String>> {
        let mut figures = Figures {
            kills: self.notes.kills,
            cuts: self.notes.cuts,
            panics: self.notes.panics,
            recoveries: self.notes.recoveries.clone(),
            ..Figures::default()
        };
        let mut findings = Vec::new();
        for camera in CAMERAS {
            let stored = self.rig.kvs.stored(camera).await;
            let mut account = Account { camera, storm: self, findings: Vec::new() };
            account.tags(&stored, &mut figures);
            account.disk(&stored);
            account.claims(&stored, &mut figures);
            account.records(&stored, &mut figures);
            // Of what is stored twice or in another order pictures cannot be told apart.
            if account.findings.is_empty() {
                account.pictures(&stored, &mut figures).await;
            }
            findings.extend(account.findings.into_iter().map(|finding| format!("{camera}: {finding}")));
        }
        if findings.is_empty() { Ok(figures) } else { Err(findings) }
    }

    /// One stored fragment is gone, as if it had never come: one from the middle of what was recorded.
    ///
    /// # Panics
    /// When nothing is stored.
    pub async fn lose_one_at_the_cloud(&mut self) {
        let stored = self.rig.kvs.stored(CAMERAS[0]).await;
        let runs: Vec<_> = stored.iter().filter_map(|one| Some(one.chunk.identity()?.id)).collect();
        let followed = stored.iter().find(|one| {
            one.chunk.identity().is_some_and(|identity| {
                runs.iter().any(|id| id.run == identity.id.run && id.sequence > identity.id.sequence)
            })
        });
        let path = format!("streams/{}/fragments/{}", CAMERAS[0], followed.expect("two of one run").number());
        self.rig.kvs.process().admin("DELETE", &path, &serde_json::Value::Null).await;
    }
}

struct Account<'a> {
    camera: &'static str,
    storm: &'a Storm,
    findings: Vec<String>,
}

impl Account<'_> {
    fn find(&mut self, finding: impl Into<String>) {
        self.findings.push(finding.into());
    }

    fn of<T: Copy + Default>(&self, map: &BTreeMap<&'static str, T>) -> T {
        map.get(self.camera).copied().unwrap_or_default()
    }

    /// By their tags: each fragment once, none missing between others of its run, each with the bytes that its tag names.
    fn tags(&mut self, stored: &[Stored], figures: &mut Figures) {
        let (refused, untagged) = (self.of(&self.storm.notes.refused), self.of(&self.storm.notes.untagged));
        let mut runs: BTreeMap<RunId, BTreeSet<u64>> = BTreeMap::new();
        let mut times = BTreeSet::new();
        let mut without = 0;
        for fragment in stored {
            if !times.insert(fragment.timecode_ms()) {
                self.find(format!("{} ms is stored twice", fragment.timecode_ms()));
            }
            let Some(identity) = fragment.chunk.identity() else {
                without += 1;
                continue;
            };
            let id = identity.id;
            let payload: Vec<u8> =
                fragment.blocks.iter().flat_map(|block| block.payload.iter().copied()).collect();
            if identity.payload_sha256 != Sha256Sum::of(&payload) {
                self.find(format!("{id} has other bytes than its tag names"));
            }
            if (&*identity.camera, &*identity.device) != (self.camera, "box") {
                self.find(format!("{id} is tagged as of {} of {}", identity.camera, identity.device));
            }
            if !runs.entry(id.run).or_default().insert(id.sequence) {
                self.find(format!("{id} is stored twice"));
            }
        }
        let mut holes = Vec::new();
        for (run, sequences) in &runs {
            let last = sequences.last().copied().unwrap_or(0);
            holes.extend((1..=last).filter(|at| !sequences.contains(at)).map(|at| format!("{run}/{at}")));
        }
        let grew = self.of(&self.storm.notes.crashed);
        if without > untagged || holes.len() > refused + without + grew {
            self.find(format!(
                "{} are missing ({holes:?}) and {without} have no tag, the cloud refused {refused} and {untagged} tags, and {grew} \
                 grew when the upload panicked",
                holes.len()
            ));
        }
        figures.fragments += stored.len();
        figures.runs += runs.len();
        figures.refused += holes.len() - without.min(holes.len());
    }

    /// What was on disk at a kill is stored, unless it was refused.
    fn disk(&mut self, stored: &[Stored]) {
        let ends: BTreeSet<u64> = stored.iter().map(end_ms).collect();
        let kept = self.storm.notes.on_disk.iter().filter(|(camera, _)| *camera == self.camera);
        // The end of a fragment is that of its last block; which of its blocks were coded last does not matter here.
        let missing: Vec<u64> = kept
            .map(|(_, end)| *end)
            .filter(|end| !ends.contains(end))
            .filter(|end| !stored.iter().any(|one| (one.timecode_ms()..=end_ms(one)).contains(end)))
            .collect();
        let distinct = missing.iter().collect::<BTreeSet<_>>().len();
        if distinct > self.of(&self.storm.notes.refused) {
            self.find(format!(
                "what ended at {missing:?} was on disk when the box was killed, and is not stored"
            ));
        }
    }

    /// What the box said about single fragments, and about what is not there.
    fn claims(&mut self, stored: &[Stored], figures: &mut Figures) {
        let by_number: BTreeMap<String, u64> =
            stored.iter().map(|one| (one.number(), one.timecode_ms())).collect();
        let mqtt = &self.storm.rig.mqtt;
        let uploads: Vec<Upload> = mqtt.bodies(&mqtt.topics.upload(self.camera));
        let verifies: Vec<Verify> = mqtt.bodies(&mqtt.topics.verify(self.camera));
        let persisted =
            uploads.iter().filter_map(|said| Some((said.last_fragment.clone()?, said.last_persisted?)));
        let identical =
            verifies.iter().filter_map(|said| Some((said.last_fragment.clone()?, said.last_verified?)));
        let claims: BTreeSet<(String, u64)> =
            persisted.chain(identical).map(|(number, at)| (number, at.as_millis())).collect();
        figures.claims += claims.len();
        for (number, at_ms) in claims {
            match by_number.get(&number) {
                None => self.find(format!("{number} was called kept, and is not stored")),
                Some(stored) if *stored != at_ms => {
                    self.find(format!("{number} was said to be of {at_ms} ms, and is of {stored} ms"));
                }
                Some(_) => {}
            }
        }
        for said in &verifies {
            if said.corrupt + said.missing + said.duplicate + said.misstated > 0 {
                let (corrupt, missing, duplicate) = (said.corrupt, said.missing, said.duplicate);
                self.find(format!(
                    "at {} it called {corrupt} corrupt, {missing} missing, {duplicate} stored twice, {} misstated: {:?}",
                    said.ts, said.misstated, said.detail
                ));
                break;
            }
        }
        // Gaps as each life told them last; one that is over and done with stays told.
        let mut gaps: Vec<Gap> = Vec::new();
        for gap in uploads.into_iter().flat_map(|said| said.gaps) {
            if !gaps.iter().any(|known| (known.start, known.end) == (gap.start, gap.end)) {
                gaps.push(gap);
            }
        }
        for gap in gaps {
            let (start, end) = (gap.start.as_millis(), gap.end.map_or(u64::MAX, |end| end.as_millis()));
            let inside = |one: &&Stored| start <= one.timecode_ms() && end_ms(one) <= end;
            if let Some(fragment) = stored.iter().find(inside) {
                let at = fragment.timecode_ms();
                self.find(format!("{gap:?} was called a gap, and the fragment at {at} ms is stored"));
            }
        }
        let (Some(upload), Some(verify)) = (
            mqtt.bodies::<Upload>(&mqtt.topics.upload(self.camera)).pop(),
            mqtt.bodies::<Verify>(&mqtt.topics.verify(self.camera)).pop(),
        ) else {
            return self.find("it said nothing");
        };
        let known = self.of(&self.storm.notes.refused) + self.of(&self.storm.notes.crashed);
        let told = verify.verdict == Verdict::Ok || verify.verdict == Verdict::Gap && known > 0;
        if upload.backlog_bytes > 0 || !told {
            self.find(format!("after it was settled: {upload:#?} {verify:#?}"));
        }
    }

    /// What `kvs-edge proof` says of each minute: the chain is whole and holds every head that was told, no minute claims more than
    /// is stored, one that is called proven has all that it recorded, and no gap holds what is stored.
    fn records(&mut self, stored: &[Stored], figures: &mut Figures) {
        let (camera, records) = (self.camera, &self.storm.notes.records);
        records.faults.iter().for_each(|fault| self.find(format!("kvs-edge proof check: {fault}")));
        for minute in records.minutes.iter().filter(|minute| minute["camera"] == camera) {
            let number = |key: &str| minute[key].as_u64().unwrap_or(0);
            let at_ms = |value: &Value| value.as_str().and_then(messages_time).unwrap_or(0);
            let (from_ms, minutes) = (at_ms(&minute["minute"]), number("minutes"));
            let inside = |one: &&Stored| {
                (from_ms..from_ms + minutes * 60_000).contains(&one.timecode_ms())
                    && one.chunk.identity().is_some()
            };
            let kept = stored.iter().filter(inside).count() as u64;
            let is_proven = minute["verdict"] == "ok";
            figures.minutes += 1;
            figures.proven += usize::from(is_proven);
            if number("persisted") > kept || is_proven && number("expected") != number("persisted") {
                self.find(format!("{kept} fragments of this minute are stored: {minute:#}"));
            }
            for gap in minute["gaps"].as_array().into_iter().flatten() {
                let (from, to) = (at_ms(&gap["from"]), at_ms(&gap["to"]));
                let hidden = stored.iter().find(|one| from <= one.timecode_ms() && end_ms(one) <= to);
                if let Some(one) = hidden {
                    let at = one.timecode_ms();
                    self.find(format!("the fragment at {at} ms is stored, and lies in a gap of {minute:#}"));
                }
            }
        }
    }

    /// By the camera's own count: nothing twice, in the order in which it was sent, and nothing missing between.
    async fn pictures(&mut self, stored: &[Stored], figures: &mut Figures) {
        let rig = &self.storm.rig;
        let sim = rig.sim(self.camera).expect("simulated");
        let other = rig.other_clip(self.camera).await;
        let mut stats = sim.stats(0);
        stats.sent = self.storm.notes.sent[self.camera].iter().copied().collect();
        let total = stats.sent.len();
        let (pictures, sent) = compare(self.camera, stored, [Some(sim.clip(0)), other.as_ref()], stats);
        figures.pictures += pictures.len();
        figures.sent += total;
        let mut sessions: BTreeMap<u64, Vec<Sent>> = BTreeMap::new();
        for one in sent {
            sessions.entry(one.picture.session).or_default().push(one);
        }
        let mut left = self.of(&self.storm.notes.refused) + self.of(&self.storm.notes.crashed);
        for (session, sent) in sessions {
            let (Some(first), Some(last)) =
                (sent.iter().position(|one| one.stored), sent.iter().rposition(|one| one.stored))
            else {
                continue;
            };
            let tail = sent[last].picture.capture_utc_ms;
            let end = sent.last().map_or(tail, |one| one.picture.capture_utc_ms);
            figures.longest_tail_ms = figures.longest_tail_ms.max(end.saturating_sub(tail));
            let whole = &sent[first..=last];
            if self.storm.notes.disturbed.contains(&(self.camera, session)) {
                self.nothing_behind_a_loss(session, whole);
                continue;
            }
            let mut stretches: Vec<(u64, u64)> = Vec::new();
            for one in whole.iter().filter(|one| !one.stored) {
                let number = one.picture.number;
                match stretches.last_mut() {
                    Some((_, to)) if *to + 1 == number => *to = number,
                    _ => stretches.push((number, number)),
                }
            }
            // Of a GOP a second long, as each fragment is: one refusal explains one stretch, and one panic.
            if stretches.len() > left {
                self.find(format!("session {session} of the camera: pictures {stretches:?} are missing"));
            }
            left -= stretches.len().min(left);
        }
    }

    /// Packets were lost on purpose: what refers to a lost picture is not stored.
    fn nothing_behind_a_loss(&mut self, session: u64, sent: &[Sent]) {
        let mut broken = false;
        for one in sent {
            broken = if one.random_access { !one.stored } else { broken || !one.stored };
            if broken && one.stored {
                return self.find(format!("session {session}: {one:?} refers to what is missing"));
            }
        }
    }
}

/// Of the last block by time.
fn end_ms(fragment: &Stored) -> u64 {
    fragment.blocks.iter().map(|block| block.time_ms).max().unwrap_or_else(|| fragment.timecode_ms())
}
