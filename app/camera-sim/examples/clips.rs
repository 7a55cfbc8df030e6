//! Renders and encodes the clips that standard input asks for, one a line, each into a folder of its own:
//!
//! ```text
//! FOLDER SEED WIDTHxHEIGHT FPS LOOP_SECONDS KBPS GOP
//! ```
//!
//! A clip is a folder within FOLDER with `video.h264` and `truth.jsonl`. What is there already is left alone.
//! The training of the shipped detector gets its pictures in this way (`app/model/train`).

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use camera_sim::{Clip, ClipSpec};

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lines() {
        let line = line?;
        make(&line).map_err(|error| format!("`{line}`: {error}"))?;
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

fn make(line: &str) -> Result<(), Box<dyn Error>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [folder, seed, size, fps, loop_seconds, bitrate_kbps, gop] = fields[..] else {
        return Err(format!("{} fields, expected 7", fields.len()).into());
    };
    let (width, height) = size.split_once('x').ok_or("the size is not WIDTHxHEIGHT")?;
    let spec = ClipSpec {
        width: width.parse()?,
        height: height.parse()?,
        fps: fps.parse()?,
        bitrate_kbps: bitrate_kbps.parse()?,
        gop: gop.parse()?,
        seed: seed.parse()?,
        loop_seconds: loop_seconds.parse()?,
        ..ClipSpec::default()
    };
    Clip::load(&spec, Path::new(folder))?;
    Ok(())
}
