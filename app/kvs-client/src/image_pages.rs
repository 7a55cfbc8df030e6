//! GetImages to its end, page by page.

use kvs::api::{GetImagesInput, IMAGES_RANGE_SECONDS, Image, LEAST_SAMPLING_INTERVAL_MS};

use crate::client::Client;
use crate::error::Error;
use crate::operation::Operation;

/// As many as a request can ask for: the longest range at the shortest interval, one in each page.
const MAX_PAGES: u64 = IMAGES_RANGE_SECONDS * 1_000 / LEAST_SAMPLING_INTERVAL_MS + 1;

/// Pictures that are being fetched. Each page is a call.
#[derive(Debug)]
pub struct ImagePages {
    client: Client,
    input: GetImagesInput,
    pages: u64,
    ended: bool,
}

impl ImagePages {
    pub(crate) fn new(client: Client, input: GetImagesInput) -> Self {
        Self { client, input, pages: 0, ended: false }
    }

    /// The pictures of the next page, in the order of their times, perhaps none; `None` at the end. After an error, and when
    /// it was cancelled, the same page is asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Image>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let output = self.client.get_images(&self.input).await?;
        let next_token = output.next_token.filter(|token| !token.is_empty());
        self.pages += 1;
        if next_token.is_some() && next_token == self.input.next_token {
            return Err(self.endless("the same NextToken twice"));
        }
        if next_token.is_some() && self.pages >= MAX_PAGES {
            return Err(self.endless(&format!("{MAX_PAGES} pages, each with a NextToken")));
        }
        self.ended = next_token.is_none();
        self.input.next_token = next_token;
        Ok(Some(output.images))
    }

    fn endless(&self, what: &str) -> Error {
        Error::BadResponse {
            operation: Operation::GetImages,
            endpoint: self.client.archived_endpoint(&self.input.stream),
            what: format!("the pictures have no end: {what}"),
            request_id: None,
        }
    }
}
