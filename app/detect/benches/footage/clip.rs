//! Pictures of a video file, by `ffmpeg`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use vision::{Colour, Matrix, Picture, Plane, Planes};

use crate::Error;

pub(crate) struct Clip {
    ffmpeg: Child,
    stream: BufReader<ChildStdout>,
    width: usize,
    height: usize,
    pub(crate) fps: f64,
    bytes: Vec<u8>,
}

impl Clip {
    pub(crate) fn open(file: &Path) -> Result<Clip, Error> {
        let mut ffmpeg = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(file)
            .args(["-f", "yuv4mpegpipe", "-pix_fmt", "yuv420p", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("ffmpeg does not start: {error}"))?;
        let mut stream = BufReader::new(ffmpeg.stdout.take().ok_or("no output")?);
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let field = |name: char| header.split_whitespace().skip(1).find_map(|word| word.strip_prefix(name));
        let [width, height, rate] = ['W', 'H', 'F'].map(field);
        let (Some(width), Some(height), Some((fps, per))) =
            (width, height, rate.and_then(|rate| rate.split_once(':')))
        else {
            return Err(format!("{}: ffmpeg gave `{}`", file.display(), header.trim()).into());
        };
        let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
        let fps = fps.parse::<f64>()? / per.parse::<f64>()?;
        let bytes = vec![0; width * height + 2 * (width.div_ceil(2) * height.div_ceil(2))];
        Ok(Clip { ffmpeg, stream, width, height, fps, bytes })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Picture<'_>>, Error> {
        let mut header = String::new();
        if self.stream.read_line(&mut header)? == 0 {
            let status = self.ffmpeg.wait()?;
            return if status.success() { Ok(None) } else { Err(format!("ffmpeg: {status}").into()) };
        }
        self.stream.read_exact(&mut self.bytes)?;
        let (half_width, half) = (self.width.div_ceil(2), self.width.div_ceil(2) * self.height.div_ceil(2));
        let (luma, chroma) = self.bytes.split_at(self.width * self.height);
        let (u, v) = chroma.split_at(half);
        let plane = |bytes, stride| Plane { bytes, stride };
        let planes =
            Planes::I420 { y: plane(luma, self.width), u: plane(u, half_width), v: plane(v, half_width) };
        let colour = Colour { matrix: Matrix::Bt601, full_range: false };
        Ok(Some(Picture::new(self.width, self.height, planes, colour)?))
    }
}

impl Drop for Clip {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.ffmpeg.kill();
        let _ = self.ffmpeg.wait();
    }
}
