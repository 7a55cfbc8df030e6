//! The operations of the service that this client speaks.

use std::fmt;

use kvs::api::{ApiName, path, session};

/// What the service can be asked for, with the page of its API reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// API_CreateStream.
    CreateStream,
    /// API_DescribeStream.
    DescribeStream,
    /// API_ListStreams.
    ListStreams,
    /// API_DeleteStream.
    DeleteStream,
    /// API_UpdateDataRetention.
    UpdateDataRetention,
    /// API_GetDataEndpoint.
    GetDataEndpoint,
    /// API_dataplane_PutMedia.
    PutMedia,
    /// API_dataplane_GetMedia.
    GetMedia,
    /// API_reader_ListFragments.
    ListFragments,
    /// API_reader_GetMediaForFragmentList.
    GetMediaForFragmentList,
    /// API_reader_GetHLSStreamingSessionURL.
    GetHlsStreamingSessionUrl,
    /// API_reader_GetImages.
    GetImages,
    /// API_reader_GetClip.
    GetClip,
    /// With [`GetHlsMediaPlaylist`](Self::GetHlsMediaPlaylist) and the fragments below: fetched by a session's URL, unsigned.
    GetHlsMasterPlaylist,
    /// A session's media playlist, by its URL.
    GetHlsMediaPlaylist,
    /// A session's initialisation segment, by its URL.
    GetMp4InitFragment,
    /// A session's media segment, by its URL.
    GetMp4MediaFragment,
}

impl Operation {
    /// As the API reference has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateStream => "CreateStream",
            Self::DescribeStream => "DescribeStream",
            Self::ListStreams => "ListStreams",
            Self::DeleteStream => "DeleteStream",
            Self::UpdateDataRetention => "UpdateDataRetention",
            Self::GetDataEndpoint => "GetDataEndpoint",
            Self::PutMedia => "PutMedia",
            Self::GetMedia => "GetMedia",
            Self::ListFragments => "ListFragments",
            Self::GetMediaForFragmentList => "GetMediaForFragmentList",
            Self::GetHlsStreamingSessionUrl => "GetHLSStreamingSessionURL",
            Self::GetImages => "GetImages",
            Self::GetClip => "GetClip",
            Self::GetHlsMasterPlaylist => "GetHLSMasterPlaylist",
            Self::GetHlsMediaPlaylist => "GetHLSMediaPlaylist",
            Self::GetMp4InitFragment => "GetMP4InitFragment",
            Self::GetMp4MediaFragment => "GetMP4MediaFragment",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::CreateStream => path::CREATE_STREAM,
            Self::DescribeStream => path::DESCRIBE_STREAM,
            Self::ListStreams => path::LIST_STREAMS,
            Self::DeleteStream => path::DELETE_STREAM,
            Self::UpdateDataRetention => path::UPDATE_DATA_RETENTION,
            Self::GetDataEndpoint => path::GET_DATA_ENDPOINT,
            Self::PutMedia => path::PUT_MEDIA,
            Self::GetMedia => path::GET_MEDIA,
            Self::ListFragments => path::LIST_FRAGMENTS,
            Self::GetMediaForFragmentList => path::GET_MEDIA_FOR_FRAGMENT_LIST,
            Self::GetHlsStreamingSessionUrl => path::GET_HLS_STREAMING_SESSION_URL,
            Self::GetImages => path::GET_IMAGES,
            Self::GetClip => path::GET_CLIP,
            Self::GetHlsMasterPlaylist => session::HLS_MASTER,
            Self::GetHlsMediaPlaylist => session::HLS_MEDIA,
            Self::GetMp4InitFragment => session::HLS_INIT,
            Self::GetMp4MediaFragment => session::HLS_FRAGMENT,
        }
    }

    /// The name under which GetDataEndpoint knows it; `None` for the control plane.
    pub(crate) fn api_name(self) -> Option<ApiName> {
        match self {
            Self::PutMedia => Some(ApiName::PutMedia),
            Self::GetMedia => Some(ApiName::GetMedia),
            Self::ListFragments => Some(ApiName::ListFragments),
            Self::GetMediaForFragmentList => Some(ApiName::GetMediaForFragmentList),
            Self::GetHlsStreamingSessionUrl => Some(ApiName::GetHlsStreamingSessionUrl),
            Self::GetClip => Some(ApiName::GetClip),
            Self::GetImages => Some(ApiName::GetImages),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
