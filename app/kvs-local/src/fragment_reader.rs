//! Stored fragments read back, piece by piece, so that a slow reader holds one piece in memory and no more.

use std::io;
use std::vec;

use bytes::{Bytes, BytesMut};
use media::mkv::read::{EventKind, Limits, Parser};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::store::FragmentMeta;
use crate::stream::{Place, Stored};

const PIECE_BYTES: usize = 256 * 1024;

/// What stands in front of the KVS tags was read; this gives the rest: the cluster and what follows it.
#[derive(Debug)]
pub(crate) enum FragmentReader {
    Memory(vec::IntoIter<Bytes>),
    Disk { file: File, left: u64 },
}

/// Header and lead, and the reader of the rest. The file stays readable if the fragment is removed meanwhile.
pub(crate) async fn open(stored: &Stored) -> io::Result<(Bytes, FragmentReader)> {
    let meta = &stored.meta;
    match &stored.place {
        Place::Memory(parts) => {
            let front: Vec<u8> = parts.iter().take(2).flatten().copied().collect();
            let rest: Vec<Bytes> = parts.iter().skip(2).cloned().collect();
            Ok((front.into(), FragmentReader::Memory(rest.into_iter())))
        }
        Place::Disk(place) => {
            let mut file = File::open(&place.path).await?;
            file.seek(io::SeekFrom::Start(place.offset)).await?;
            let front_bytes =
                usize::try_from(meta.header_bytes + meta.lead_bytes).map_err(io::Error::other)?;
            let mut front = vec![0; front_bytes];
            file.read_exact(&mut front).await?;
            Ok((front.into(), FragmentReader::Disk { file, left: meta.cluster_bytes + meta.trailer_bytes }))
        }
    }
}

impl FragmentReader {
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Memory(pieces) => Ok(pieces.next()),
            Self::Disk { left: 0, .. } => Ok(None),
            Self::Disk { file, left } => {
                let wanted = usize::try_from(*left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let mut piece = BytesMut::zeroed(wanted);
                file.read_exact(&mut piece).await?;
                *left -= wanted as u64;
                Ok(Some(piece.freeze()))
            }
        }
    }
}

/// All bytes of a fragment: (header and lead, cluster, trailer).
pub(crate) async fn whole(stored: &Stored) -> io::Result<(Bytes, Bytes, Bytes)> {
    let (front, mut reader) = open(stored).await?;
    let mut rest = BytesMut::new();
    while let Some(piece) = reader.next().await? {
        rest.extend_from_slice(&piece);
    }
    let mut cluster = rest.freeze();
    let cluster_bytes = usize::try_from(stored.meta.cluster_bytes).map_err(io::Error::other)?;
    let trailer = cluster.split_off(cluster_bytes.min(cluster.len()));
    Ok((front, cluster, trailer))
}

/// Offset of the last payload byte of the first block in `cluster`; a flip there damages the picture and no
/// element around it.
pub(crate) fn payload_offset(meta: &FragmentMeta, front: &Bytes, cluster: &Bytes) -> Option<usize> {
    let header = front.slice(..usize::try_from(meta.header_bytes).ok()?.min(front.len()));
    let skipped = header.len() as u64;
    let mut parser = Parser::new(Limits::default());
    parser.push(header);
    parser.push(cluster.clone());
    while let Ok(Some(event)) = parser.next_event() {
        if let EventKind::Block { .. } = event.kind {
            return usize::try_from((event.at + event.raw.len() as u64).checked_sub(skipped + 1)?).ok();
        }
    }
    None
}
