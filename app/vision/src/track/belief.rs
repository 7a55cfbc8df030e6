//! Whether a track still shows an object: running log-odds, which boxes with low scores use up.
//!
//! A box with a low score says little by itself. Someone who is half hidden has some for a second or two, so a track that
//! was seen well may live on them; a traffic cone has nothing else. How good a box is counts in shares of the score that
//! begins a track, for that is where the user says what is worth a track.
//!
//! Pictures that follow each other closely see the same thing, so evidence is per second and not per picture: a track
//! means the same at 5 and at 30 pictures a second. Being unseen is no evidence against a confirmed track, for
//! `lost_after_ms` judges that. It is against one that is not: what looks like a person in one picture of ten is a cone.

/// Log-odds of a track that one box has begun. It is confirmed when its next boxes left no less of it.
const BEGUN: f32 = 0.5;
/// As sure as a track can be: some 7 to 1. Bounds how long it lives on low scores.
const SUREST: f32 = 2.0;
/// As doubtful as it can be. A few good boxes, or one at 2 pictures a second, are believed again.
const MOST_DOUBTFUL: f32 = 0.5;
/// A box this strong says neither yes nor no. Boxes between 0.4 and 0.5 (with 0.5 to begin) that continued a track were
/// right in 64 of 100 cases on real footage and in 88 on rendered one; when there was nothing better for 0.7 s, in 30 and 80.
const NEUTRAL: f32 = 0.75;
/// Log-odds a second, for each time that a box is as strong as one that may begin a track.
const PER_SECOND: f32 = 4.0;
/// A picture after a longer pause is one picture.
const LONGEST_S: f32 = 0.5;
/// Twice what begins a track is as strong as it gets: a class may begin at any score.
const STRONGEST: f32 = 2.0;

/// A box's score in parts of the score that begins a track of its class; at least 1 when it may.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Strength(f32);

impl Strength {
    pub(super) fn new(score: f32, begin_score: f32) -> Strength {
        if score >= STRONGEST * begin_score { Strength(STRONGEST) } else { Strength(score / begin_score) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Belief(f32);

impl Belief {
    pub(super) fn begun() -> Belief {
        Belief(BEGUN)
    }

    /// A box continues the track, `seconds` after the picture before.
    pub(super) fn see(&mut self, strength: Strength, seconds: f32) {
        let evidence = PER_SECOND * (strength.0 - NEUTRAL) * seconds.min(LONGEST_S);
        self.0 = (self.0 + evidence).clamp(-MOST_DOUBTFUL, SUREST);
    }

    /// Nothing that could begin a track continues this one, which is not confirmed yet.
    pub(super) fn miss(&mut self, seconds: f32) {
        self.see(Strength(0.0), seconds);
    }

    /// Nothing has spoken against it, all in all, since it began.
    pub(super) fn confirms(self) -> bool {
        self.0 >= BEGUN
    }

    /// It is more likely than not that the track shows an object.
    pub(super) fn holds(self) -> bool {
        self.0 >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGIN: f32 = 0.5;

    fn see(belief: &mut Belief, score: f32, fps: f32, seconds: f32) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pictures")]
        for _ in 0..(seconds * fps) as u32 {
            belief.see(Strength::new(score, BEGIN), 1.0 / fps);
        }
    }

    #[test]
    fn low_scores_are_believed_for_a_while_after_high_ones() {
        for fps in [2.0, 5.0, 10.0, 30.0] {
            let mut belief = Belief::begun();
            see(&mut belief, 0.8, fps, 2.0);
            let seen_well = belief;
            see(&mut belief, 0.2, fps, 1.0);
            assert!(belief.holds(), "{fps} fps");
            see(&mut belief, 0.2, fps, 0.6);
            assert!(!belief.holds(), "{fps} fps");
            see(&mut belief, 0.8, fps, 1.0);
            assert!(belief.holds(), "{fps} fps: seen well again");
            // Nearly good enough: for longer.
            let mut belief = seen_well;
            see(&mut belief, 0.35, fps, 9.0);
            assert!(belief.holds(), "{fps} fps");
            see(&mut belief, 0.35, fps, 2.0);
            assert!(!belief.holds(), "{fps} fps");
        }
    }

    #[test]
    fn who_was_hardly_seen_well_is_doubted_sooner() {
        let mut cone = Belief::begun();
        see(&mut cone, 0.51, 10.0, 0.3);
        see(&mut cone, 0.3, 10.0, 1.6);
        assert!(!cone.holds(), "{cone:?}");
    }

    #[test]
    fn only_what_is_mostly_seen_well_is_confirmed() {
        for fps in [2.0, 5.0, 10.0, 30.0] {
            let check = |score: f32, missed_after: usize, missed: usize, confirms: bool| {
                let mut belief = Belief::begun();
                for _ in 0..10 {
                    for _ in 0..missed_after {
                        belief.see(Strength::new(score, BEGIN), 1.0 / fps);
                    }
                    for _ in 0..missed {
                        belief.miss(1.0 / fps);
                    }
                }
                belief.see(Strength::new(score, BEGIN), 1.0 / fps);
                assert_eq!(
                    belief.confirms(),
                    confirms,
                    "{fps} fps, {score}, {missed_after} and {missed}: {belief:?}"
                );
            };
            check(0.5, 10, 0, true);
            check(0.75, 2, 1, true);
            check(0.9, 1, 1, true);
            check(0.51, 1, 1, false);
            check(0.6, 1, 3, false);
        }
    }

    proptest! {
        /// Boxes that may begin a track never bring one into doubt, whatever the class begins at.
        #[test]
        fn strong_boxes_are_never_doubted(
            begin in 0.0..=1.0_f32,
            seen in proptest::collection::vec((0.0..=1.0_f32, 0.0..=10.0_f32), 0..100),
        ) {
            let mut belief = Belief::begun();
            for (above, seconds) in seen {
                belief.see(Strength::new(begin + above * (1.0 - begin), begin), seconds);
                prop_assert!(belief.holds());
            }
        }

        /// A higher score never makes a track less believable, and whatever comes, good boxes are soon believed.
        #[test]
        fn better_boxes_are_believed_more(
            begin in 0.05..=1.0_f32,
            seen in proptest::collection::vec((0.0..=1.0_f32, 0.0..=1.0_f32, 0.0..=10.0_f32), 0..100),
        ) {
            let (mut better, mut worse) = (Belief::begun(), Belief::begun());
            for (a, b, seconds) in seen {
                better.see(Strength::new(a.max(b), begin), seconds);
                worse.see(Strength::new(a.min(b), begin), seconds);
                prop_assert!(better >= worse, "{better:?} {worse:?}");
            }
            for _ in 0..2 {
                worse.see(Strength::new(2.0 * begin, begin), 0.1);
            }
            prop_assert!(worse.holds());
        }

        /// The same score over the same time says the same, in few pictures or in many.
        #[test]
        fn evidence_does_not_depend_on_the_frame_rate(score in 0.0..=1.0_f32, steps in 1..20_u8) {
            let (mut once, mut often) = (Belief::begun(), Belief::begun());
            once.see(Strength::new(score, BEGIN), LONGEST_S);
            for _ in 0..steps {
                often.see(Strength::new(score, BEGIN), LONGEST_S / f32::from(steps));
            }
            prop_assert!((once.0 - often.0).abs() < 1e-4, "{once:?} {often:?}");
        }
    }
}
