//! Tracks as MOTChallenge has results: `frame,id,left,top,width,height,score,-1,-1,-1`, a line for each confirmed track that is
//! seen in a picture.
//!
//! `frame` is the number of the picture in the file, from 1, so that truth which numbers all pictures fits whatever the rate; boxes
//! are in pixels of the upright picture. Labels have no place in it: analyze one label at a time where that matters.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use vision::track::Track;

pub(super) struct Mot {
    file: BufWriter<File>,
}

impl Mot {
    pub(super) fn new(file: File) -> Self {
        Self { file: BufWriter::new(file) }
    }

    /// The lines of one picture are in the file once this returns.
    pub(super) fn picture(&mut self, number: u64, size: (u32, u32), tracks: &[Track]) -> io::Result<()> {
        for track in tracks.iter().filter(|track| track.confirmed && track.seen_now) {
            let (width, height) = (f64::from(size.0), f64::from(size.1));
            let rect = track.rect;
            let [x, y, w, h] = [rect.x, rect.y, rect.w, rect.h].map(f64::from);
            writeln!(
                self.file,
                "{number},{},{:.2},{:.2},{:.2},{:.2},{:.4},-1,-1,-1",
                track.id,
                x * width,
                y * height,
                w * width,
                h * height,
                track.score,
            )?;
        }
        self.file.flush()
    }
}
