//! Fragments as they come, each whole.

use bytes::Bytes;
use kvs::read::documents::{Document, Documents};
use media::mkv::read::ReadError;

use crate::error::Error;
use crate::media_stream::MediaStream;

/// The fragments of one answer, live or stored.
pub struct FragmentStream {
    answer: Option<MediaStream>,
    documents: Documents,
}

/// Why the next fragment did not come.
#[derive(Debug, thiserror::Error)]
pub enum FragmentStreamError {
    /// The answer broke.
    #[error(transparent)]
    Call(#[from] Error),
    /// With the place.
    #[error("the answer is no Matroska: {0}")]
    Matroska(#[from] ReadError),
}

impl FragmentStream {
    /// Of GetMedia or of GetMediaForFragmentList.
    pub fn new(answer: MediaStream) -> Self {
        Self { answer: Some(answer), documents: Documents::default() }
    }

    /// The next fragment; `None` at the end of the answer. The last one of an answer that broke off comes first, not
    /// complete, and the error behind it is the end. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Document>, FragmentStreamError> {
        while let Some(answer) = &mut self.answer {
            if let Some(document) = self.documents.next_document()? {
                return Ok(Some(document));
            }
            match answer.next_bytes().await {
                Ok(Some(bytes)) => self.documents.push(bytes),
                Ok(None) => self.answer = None,
                Err(error) => {
                    self.answer = None;
                    return match self.documents.finish(false)? {
                        Some(document) => Ok(Some(document)),
                        None => Err(error.into()),
                    };
                }
            }
        }
        Ok(self.documents.finish(true)?)
    }
}

/// The documents of a file or of any other bytes at hand.
pub fn documents_of(bytes: Bytes) -> Result<Vec<Document>, ReadError> {
    let (mut documents, mut found) = (Documents::default(), Vec::new());
    documents.push(bytes);
    while let Some(document) = documents.finish(true)? {
        found.push(document);
    }
    Ok(found)
}
