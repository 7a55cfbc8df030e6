//! ListFragments to its end, page by page.

use kvs::api::{Fragment, FragmentSelector, ListFragmentsInput, StreamId};

use crate::client::Client;
use crate::error::Error;
use crate::operation::Operation;

/// The most that a page may hold (KVS limits page).
const MAX_PAGE: u32 = 1000;
/// Pages may be empty; a service that sends nothing else is broken.
const MAX_EMPTY_PAGES: u32 = 100;

/// A list that is being read. Each page is a call.
#[derive(Debug)]
pub struct FragmentPages {
    client: Client,
    input: ListFragmentsInput,
    ended: bool,
    empty_pages: u32,
}

impl FragmentPages {
    pub(crate) fn new(client: Client, stream: StreamId, selector: FragmentSelector) -> Self {
        let input = ListFragmentsInput {
            stream,
            max_results: Some(MAX_PAGE),
            next_token: None,
            fragment_selector: Some(selector),
        };
        Self { client, input, ended: false, empty_pages: 0 }
    }

    /// The rows of the next page, in no order, perhaps none; `None` at the end. After an error, and when it was
    /// cancelled, the same page is asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Fragment>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let output = self.client.list_fragments(&self.input).await?;
        let next_token = output.next_token.filter(|token| !token.is_empty());
        self.empty_pages = if output.fragments.is_empty() { self.empty_pages + 1 } else { 0 };
        if next_token.is_some() && next_token == self.input.next_token {
            return Err(self.endless("the same NextToken twice"));
        }
        if next_token.is_some() && self.empty_pages == MAX_EMPTY_PAGES {
            return Err(self.endless(&format!("{MAX_EMPTY_PAGES} empty pages, each with a NextToken")));
        }
        self.ended = next_token.is_none();
        self.input.next_token = next_token;
        Ok(Some(output.fragments))
    }

    fn endless(&self, what: &str) -> Error {
        Error::BadResponse {
            operation: Operation::ListFragments,
            endpoint: self.client.archived_endpoint(&self.input.stream),
            what: format!("the list has no end: {what}"),
            request_id: None,
        }
    }
}
