//! `wav`: the sound of Amazon Connect, one file for each side of each call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kvs_client::kvs::read::connect::{
    FROM_CUSTOMER, Gaps, PcmFormat, Piece, Recording, Recordings, TO_CUSTOMER, WAV_HEADER_BYTES,
};
use kvs_client::kvs::read::documents::Document;
use media::ProducerTimestamp;
use tokio_util::sync::CancellationToken;

use super::account::What;
use super::read::{Wanted, read};
use super::{Failed, write};

/// Zeros that are written at once.
static SILENCE: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Args)]
pub(crate) struct Wav {
    #[command(flatten)]
    what: What,
    /// Where the files go; created if it is not there.
    folder: PathBuf,
    /// Names of tracks, whatever their numbers.
    #[arg(long, value_name = "NAME", default_values = [FROM_CUSTOMER, TO_CUSTOMER])]
    track: Vec<String>,
    /// Join what was recorded, without silence where nothing was: sides of a call are then not in step.
    #[arg(long)]
    joined: bool,
    /// One file for each fragment and track, as AWS's consumer library has it: NUMBER-TRACK.wav. Can be repeated: of what
    /// is stored, fragments whose files are there are not fetched again.
    #[arg(long, conflicts_with = "joined")]
    per_fragment: bool,
}

pub(super) async fn run(wav: Wav, out: &mut impl Write, stop: &CancellationToken) -> Result<(), Failed> {
    let Wav { what, folder, track, joined, per_fragment } = wav;
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let tracks: Vec<&str> = track.iter().map(String::as_str).collect();
    let mut recordings = Recordings::new(if joined { Gaps::Joined } else { Gaps::Silence });
    let mut files = Files { folder: &folder, open: BTreeMap::new() };
    let (mut sounds, mut unnumbered) = (0, 0);
    let take = |document: &Document| {
        let contents = document.contents().map_err(|error| error.to_string())?;
        if !per_fragment {
            for piece in recordings.take(&contents, &tracks) {
                sounds += 1;
                if let Some(path) = files.add(&piece)? {
                    write(out, format_args!("{}", path.display()))?;
                }
            }
            return Ok(());
        }
        let number = document.number.map(|number| number.to_string()).unwrap_or_else(|| {
            unnumbered += 1;
            format!("document-{unnumbered}")
        });
        for track in &tracks {
            let Some(wav) = contents.wav(track) else { continue };
            let path = path(&folder, &number, track);
            // Written aside first, so that a file of this name is always whole.
            let aside = folder.join(".part");
            let written = std::fs::write(&aside, wav).and_then(|()| std::fs::rename(&aside, &path));
            written.map_err(|error| format!("{}: {error}", path.display()))?;
            sounds += 1;
            write(out, format_args!("{}", path.display()))?;
        }
        Ok(())
    };
    let is_there =
        |number: &str| per_fragment && tracks.iter().all(|track| path(&folder, number, track).exists());
    let wanted = Wanted { what, wanted: |number: &str| !is_there(number), after: None, empty: false, stop };
    let fragments = read(wanted, take).await?;
    if sounds == 0 && fragments > 0 {
        return Err(format!("none of {fragments} fragments has a track named {}", tracks.join(" or ")).into());
    }
    Ok(())
}

/// Of one fragment's track.
fn path(folder: &Path, number: &str, track: &str) -> PathBuf {
    folder.join(format!("{number}-{}.wav", file_name(track)))
}

/// Of something that came from outside, what can stand in the name of a file.
fn file_name(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = text.chars().take(64).map(keep).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

/// One file for each track of the recording that goes on; after each piece it is a whole WAV file.
struct Files<'a> {
    folder: &'a Path,
    open: BTreeMap<String, Open>,
}

struct Open {
    recording: Recording,
    path: PathBuf,
    file: File,
    bytes: u32,
}

impl Files<'_> {
    /// The path, if the file is new.
    fn add(&mut self, piece: &Piece) -> Result<Option<PathBuf>, Failed> {
        let goes_on = self.open.get(&piece.track).is_some_and(|open| open.recording == piece.recording);
        let mut made = None;
        if !goes_on {
            let open = self.create(&piece.recording, &piece.track)?;
            made = Some(open.path.clone());
            self.open.insert(piece.track.clone(), open);
        }
        let Some(open) = self.open.get_mut(&piece.track) else { return Ok(None) };
        let added = open.add(piece, piece.recording.format);
        added.map_err(|error| format!("{}: {error}", open.path.display()))?;
        Ok(made)
    }

    fn create(&self, recording: &Recording, track: &str) -> Result<Open, Failed> {
        let begins = ProducerTimestamp::from_millis(u64::try_from(recording.begins_ms).unwrap_or(0));
        let contact = recording.contact.as_deref().unwrap_or("unknown");
        let begins = begins.to_string().replace([':', '-'], "");
        let name = format!("{}-{begins}-{}.wav", file_name(contact), file_name(track));
        let path = self.folder.join(name);
        let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Open { recording: recording.clone(), path, file, bytes: 0 })
    }
}

impl Open {
    fn add(&mut self, piece: &Piece, format: PcmFormat) -> io::Result<()> {
        let longer = piece.silence_bytes + piece.samples.len() as u64;
        let bytes = u64::from(self.bytes) + longer;
        // The sizes in a WAV file have 32 bits.
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes < u32::MAX - 36);
        let bytes = bytes.ok_or_else(|| io::Error::other("a WAV file holds at most 4 GiB"))?;
        self.file.seek(SeekFrom::Start(WAV_HEADER_BYTES as u64 + u64::from(self.bytes)))?;
        let mut silence = piece.silence_bytes;
        while silence > 0 {
            let count = silence.min(SILENCE.len() as u64);
            self.file.write_all(&SILENCE[..usize::try_from(count).unwrap_or(SILENCE.len())])?;
            silence -= count;
        }
        self.file.write_all(&piece.samples)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&format.wav_header(Some(bytes)))?;
        self.bytes = bytes;
        Ok(())
    }
}
