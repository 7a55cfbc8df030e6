//! The rendered scene: figures that look a little like people and vehicles move over a textured background.
//!
//! Every picture is a function of the seed and its index alone. Shapes are cut against each other pixel by pixel,
//! so the ground truth knows exactly what can be seen. A detector that is trained on these scenes finds these
//! figures; it says nothing about real people.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
// Pixel arithmetic: sizes are far below 2^24, and every value is clamped where it is narrowed.

mod actor;
mod background;
mod canvas;
mod font;
mod layer;
mod light;
mod number;
mod person;
mod strip;
mod truth;
mod vehicle;
mod view;

pub use canvas::Picture420;
pub use strip::read_frame_index;
pub use truth::{FrameTruth, Label, TruthBox};

pub(crate) use strip::MIN_WIDTH;

use actor::{Actor, Look, Placement};
use background::Background;
use layer::Layers;
use light::Light;
use number::Random;
use view::View;

/// Raised whenever the same seed gives other pictures than before; part of the name of cached clips.
pub const RENDERER_VERSION: u32 = 1;

/// Figures of which less can be seen are not labelled.
const MIN_VISIBLE: f32 = 0.3;

/// What to render. Width and height even, at least 192 x 96; `loop_seconds * fps` at most 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SceneSpec {
    pub width: usize,
    pub height: usize,
    pub fps: u32,
    pub loop_seconds: u32,
    pub seed: u64,
}

impl SceneSpec {
    /// Number of frames until the scene repeats.
    pub fn frames(&self) -> u32 {
        self.fps * self.loop_seconds
    }
}

pub struct Scene {
    spec: SceneSpec,
    view: View,
    background: Background,
    actors: Vec<Actor>,
    light: Light,
    layers: Layers,
    picture: Picture420,
}

impl Scene {
    pub fn new(spec: SceneSpec) -> Scene {
        let mut random = Random::new(spec.seed, 1);
        let view = View::new(spec.width, spec.height, &mut random);
        let roads = view::roads(&view, &mut random);
        let actors = actor::cast(&view, &roads, spec.loop_seconds as f32, &mut random);
        Scene {
            spec,
            view,
            background: background::draw(&view, &roads, spec.seed),
            actors,
            light: Light::new(spec.width, spec.seed),
            layers: Layers::new(spec.width, spec.height),
            picture: Picture420::new(spec.width, spec.height),
        }
    }

    /// Renders frame `index` (taken modulo the loop) and tells what can be seen in it.
    pub fn render(&mut self, index: u32) -> (&Picture420, FrameTruth) {
        let index = index % self.spec.frames();
        let (loop_s, now) = (self.spec.loop_seconds as f32, index as f32 / self.spec.fps as f32);
        self.picture.copy_from(&self.background.picture);
        self.layers.clear();

        let mut present: Vec<(u32, Placement, &Look)> = Vec::new();
        let mut track = 0;
        for actor in &self.actors {
            for instance in 0..actor.instances(loop_s) {
                if let Some(placement) = actor.at(now, instance, loop_s) {
                    present.push((track + instance, placement, &actor.look));
                }
            }
            track += actor.instances(loop_s);
        }
        present.sort_by(|a, b| b.1.z.total_cmp(&a.1.z).then(a.0.cmp(&b.0)));
        for (_, placement, look) in &present {
            shadow(&self.view, &mut self.picture, placement, look);
        }
        let mut drawn = Vec::with_capacity(present.len());
        for (track, placement, look) in &present {
            let row = self.view.project(placement.x, 0.0, placement.z).1;
            if let Some(mut figure) = self.layers.figure(&mut self.picture, &self.background.standing, row) {
                draw_figure(&self.view, &mut figure, placement, look);
                drawn.push((*track, *look, figure.finish()));
            }
        }
        let mut objects: Vec<TruthBox> =
            drawn.iter().filter_map(|(track, look, drawn)| self.label(*track, look, drawn)).collect();
        objects.sort_by_key(|object| object.track);

        self.light.apply(&mut self.picture, index, now / loop_s);
        self.burn_in(index);
        (&self.picture, FrameTruth { frame: index, objects })
    }

    fn label(&self, track: u32, look: &Look, drawn: &layer::Drawn) -> Option<TruthBox> {
        let visibility = self.layers.visibility(drawn)?;
        let [l, t, r, b] = visibility.bounds.map(|pixels| pixels as f32);
        let (width, height) = (self.view.width, self.view.height);
        // Smaller than this is a smudge, not a figure.
        if visibility.visible < MIN_VISIBLE || b - t < height / 90.0 || r - l < width / 320.0 {
            return None;
        }
        let label = match look {
            Look::Person(_) => Label::Person,
            Look::Vehicle(_) => Label::Vehicle,
        };
        let (x, y, w, h) = (l / width, t / height, (r - l) / width, (b - t) / height);
        Some(TruthBox { label, track, x, y, w, h, visible: visibility.visible })
    }

    fn burn_in(&mut self, index: u32) {
        let SceneSpec { fps, loop_seconds, seed, .. } = self.spec;
        let ms = u64::from(index) * 1000 / u64::from(fps);
        let text =
            format!("UTC {:02}.{:03} MOD {loop_seconds} S  F {index:05}  SEED {seed}", ms / 1000, ms % 1000);
        let scale = (self.spec.height / 360).max(1);
        font::draw(&mut self.picture, 0, 0, scale, &text);
        strip::draw(&mut self.picture, index as u16);
    }
}

fn shadow(view: &View, picture: &mut Picture420, placement: &Placement, look: &Look) {
    let at = view.project(placement.x, 0.0, placement.z);
    let scale = view.scale(placement.z);
    let radius = match look {
        Look::Person(_) => (0.42, 0.1),
        Look::Vehicle(look) => (0.3 * look.length + 0.28 * look.length * placement.dx.abs(), 0.55),
    };
    canvas::shade(picture, at, (radius.0 * scale, radius.1 * scale), 150);
}

fn draw_figure(view: &View, figure: &mut layer::Figure<'_>, placement: &Placement, look: &Look) {
    match look {
        Look::Person(look) => {
            let pose = person::Pose {
                foot: view.project(placement.x, 0.0, placement.z),
                scale: view.scale(placement.z),
                // Two steps of 0.4 body heights each.
                gait: placement.travelled / (look.height * 0.8),
                stride: (placement.speed / 1.0).min(1.0),
                heading: placement.dx,
                towards: placement.dz <= 0.0,
            };
            look.draw(figure, &pose);
        }
        Look::Vehicle(look) => {
            let place = vehicle::Place { x: placement.x, z: placement.z, dx: placement.dx, dz: placement.dz };
            look.draw(figure, view, &place, placement.travelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;

    fn spec(seed: u64) -> SceneSpec {
        SceneSpec { width: 320, height: 180, fps: 10, loop_seconds: 4, seed }
    }

    fn hash(scene: &mut Scene, frames: impl IntoIterator<Item = u32>) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for index in frames {
            hasher.update(scene.render(index).0.as_bytes());
        }
        hasher.finalize().into()
    }

    #[test]
    fn the_same_seed_gives_the_same_pictures_in_any_order() {
        let first = hash(&mut Scene::new(spec(7)), [3, 17]);
        let mut other = Scene::new(spec(7));
        other.render(30);
        assert_eq!(first, hash(&mut other, [3, 17]));
        assert_ne!(first, hash(&mut Scene::new(spec(8)), [3, 17]));
        assert_ne!(hash(&mut other, [3]), hash(&mut other, [4]));
    }

    #[test]
    fn every_frame_carries_its_index_and_wraps_after_the_loop() {
        let mut scene = Scene::new(spec(1));
        for (asked, index) in [(0, 0), (39, 39), (40, 0), (83, 3)] {
            let (picture, truth) = scene.render(asked);
            assert_eq!(read_frame_index(picture.luma(), 320, 320, 180), Some(index));
            assert_eq!(truth.frame, index);
        }
    }

    #[test]
    fn ground_truth_lies_inside_the_frame_and_shows_both_labels_on_the_move() {
        for seed in 0..6 {
            let mut scene = Scene::new(spec(seed));
            let truth: Vec<FrameTruth> = (0..40).map(|index| scene.render(index).1).collect();
            let boxes: Vec<&TruthBox> = truth.iter().flat_map(|frame| &frame.objects).collect();
            for b in &boxes {
                assert!(b.x >= 0.0 && b.y >= 0.0 && b.x + b.w <= 1.0001 && b.y + b.h <= 1.0001, "{b:?}");
                assert!(b.w > 0.0 && b.h > 0.0 && (0.3..=1.0).contains(&b.visible), "{b:?}");
            }
            let labels: BTreeSet<_> = boxes.iter().map(|b| format!("{:?}", b.label)).collect();
            assert_eq!(labels.len(), 2, "seed {seed}: {labels:?}");
            assert!(boxes.len() > 60, "seed {seed}: only {} boxes in 40 frames", boxes.len());
            let moved = truth[0].objects.iter().any(|before| {
                truth[5]
                    .objects
                    .iter()
                    .any(|after| after.track == before.track && (after.x - before.x).abs() > 0.01)
            });
            assert!(moved, "seed {seed}: nothing moves");
            for frame in &truth {
                let tracks: BTreeSet<_> = frame.objects.iter().map(|object| object.track).collect();
                assert_eq!(
                    tracks.len(),
                    frame.objects.len(),
                    "a track appears twice in frame {}",
                    frame.frame
                );
            }
        }
    }
}
