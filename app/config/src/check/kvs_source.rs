//! `[camera.kvs]`: how a camera that is a KVS stream is read.

use std::time::Duration;

use kvs::api::FragmentSelectorType;
use kvs::read::follow::FollowConfig;
use kvs::read::fragment_list::{FragmentListConfig, Wanted};
use kvs::read::hls::{HlsConfig, Play};
use media::ProducerTimestamp;

use super::values::seconds;
use crate::document::{Report, Section};
use crate::{KvsMode, KvsSource};

const DAY_MS: u64 = 24 * 3_600_000;

/// `mode`: what the camera's `source` says; `None`: it is no KVS stream, and needs no such table.
pub(super) fn kvs_source(
    report: &mut Report,
    mut section: Section,
    mode: Option<KvsMode>,
) -> Option<KvsSource> {
    if mode.is_none() && section.is_present() {
        let fix = "write source = \"getmedia\", \"hls\" or \"fragment_list\" above, or remove this table";
        let found = "a table for KVS streams";
        report.mistake(section.at, section.name(), found, "none for a camera of RTSP", fix);
    }
    let (follow, hls, list) = (FollowConfig::default(), HlsConfig::default(), FragmentListConfig::default());
    let is_hls = mode == Some(KvsMode::Hls);
    let first = if is_hls { hls.reconnect_delay } else { follow.reconnect_delay };
    let reconnect_delay = seconds(report, &mut section, "reconnect_delay_s", 1..=3600, first);
    let most = seconds(report, &mut section, "max_reconnect_delay_s", 1..=3600, hls.max_reconnect_delay);
    if most < reconnect_delay {
        let at = section.at_key("max_reconnect_delay_s").or_else(|| section.at_key("reconnect_delay_s"));
        let found = format!("{} s", most.as_secs());
        let expected = format!("at least reconnect_delay_s, {}", reconnect_delay.as_secs());
        let fix = "raise it, or lower reconnect_delay_s";
        report.mistake(
            at.unwrap_or(section.at),
            &section.path("max_reconnect_delay_s"),
            found,
            expected,
            fix,
        );
    }
    let multiplier = section.number(report, "backoff_multiplier", 1.0..=10.0, hls.backoff_multiplier);
    let backoff_multiplier = multiplier.map_or(hls.backoff_multiplier, |number| number.value);
    let oldest = follow.max_fragment_age.unwrap_or_default();
    let max_fragment_age = seconds(report, &mut section, "max_fragment_age_s", 1..=86_400, oldest);
    let chunk_size = section.integer(report, "chunk_bytes", 1_024..=16 << 20, follow.chunk_size as u64);
    let session_s = section.integer(report, "hls_session_s", 60..=43_200, hls.hls_session_seconds.into());
    let margin = seconds(report, &mut section, "url_refresh_margin_s", 1..=3600, hls.url_refresh_margin);
    if margin.as_secs() >= session_s {
        let at = section.at_key("url_refresh_margin_s").or_else(|| section.at_key("hls_session_s"));
        let expected = format!("less than hls_session_s, {session_s}");
        let fix = "lower it, or raise hls_session_s";
        let found = format!("{} s", margin.as_secs());
        report.mistake(at.unwrap_or(section.at), &section.path("url_refresh_margin_s"), found, expected, fix);
    }
    let range = range(report, &mut section, mode);
    for (key, of) in [
        ("max_fragment_age_s", KvsMode::GetMedia),
        ("chunk_bytes", KvsMode::GetMedia),
        ("hls_session_s", KvsMode::Hls),
        ("url_refresh_margin_s", KvsMode::Hls),
    ] {
        if let (Some(mode), Some(at)) = (mode.filter(|mode| *mode != of), section.at_key(key)) {
            let found = format!("{key} beside source = \"{}\"", mode.name());
            let expected = format!("it with source = \"{}\"", of.name());
            report.mistake(at, &section.path(key), found, expected, "remove it, or choose that source");
        }
    }
    section.finish(report);
    Some(match mode? {
        KvsMode::GetMedia => KvsSource::GetMedia(FollowConfig {
            max_fragment_age: Some(max_fragment_age),
            reconnect_delay,
            max_reconnect_delay: most,
            backoff_multiplier,
            max_reconnect_attempts: None,
            chunk_size: usize::try_from(chunk_size).unwrap_or(follow.chunk_size),
            ..follow
        }),
        KvsMode::Hls => KvsSource::Hls {
            config: HlsConfig {
                hls_session_seconds: u32::try_from(session_s).unwrap_or(hls.hls_session_seconds),
                url_refresh_margin: margin,
                reconnect_delay,
                max_reconnect_delay: most,
                backoff_multiplier,
                max_consecutive_errors: None,
                // Nobody listens.
                sound: false,
                ..hls
            },
            play: range.map_or(Play::Live, |(from_ms, to_ms)| Play::Range { from_ms, to_ms }),
        },
        KvsMode::FragmentList => {
            let (from_ms, to_ms) = range?;
            KvsSource::FragmentList {
                config: FragmentListConfig {
                    reconnect_delay,
                    max_reconnect_delay: most,
                    backoff_multiplier,
                    max_consecutive_errors: None,
                    ..list
                },
                wanted: Wanted::Range { by: FragmentSelectorType::ProducerTimestamp, from_ms, to_ms },
            }
        }
    })
}

/// `from` and `to`. `None` together with a mistake, or where there is none.
fn range(report: &mut Report, section: &mut Section, mode: Option<KvsMode>) -> Option<(u64, u64)> {
    const EXPECTED: &str = "a date and time of RFC 3339";
    let mut time = |key| {
        let text = section.string(report, key)?;
        let found = ProducerTimestamp::parse_rfc3339(&text.value);
        if found.is_none() {
            let fix = format!("write {key} = \"2026-11-20T10:00:00Z\"");
            let found = crate::document::brief(&text.value);
            report.mistake(text.at, &section.path(key), found, EXPECTED, fix);
        }
        found.map(ProducerTimestamp::as_millis)
    };
    let (from, to) = (time("from"), time("to"));
    let given = |key| section.has(key);
    match mode {
        Some(KvsMode::GetMedia) => {
            for key in ["from", "to"] {
                if let Some(at) = section.at_key(key) {
                    let fix = "remove it, or write source = \"fragment_list\" or \"hls\"";
                    let found = format!("{key} beside source = \"getmedia\"");
                    report.mistake(at, &section.path(key), found, "what comes live", fix);
                }
            }
            return None;
        }
        Some(KvsMode::Hls) if !given("from") && !given("to") => return None,
        Some(KvsMode::Hls | KvsMode::FragmentList) => {
            for key in ["from", "to"] {
                if !given(key) {
                    let fix = format!("write {key} = \"2026-11-20T10:00:00Z\"");
                    section.missing(report, key, EXPECTED, &fix);
                }
            }
        }
        None => return None,
    }
    let (from_ms, to_ms) = from.zip(to)?;
    // A session of HLS holds a day (KVS API, HLSTimestampRange); a longer list is a job for many.
    if from_ms >= to_ms || to_ms - from_ms > DAY_MS {
        let at = section.at_key("to").unwrap_or(section.at);
        let hours = Duration::from_millis(to_ms.saturating_sub(from_ms)).as_secs() / 3600;
        let found = if from_ms >= to_ms {
            "a time that is not behind `from`".to_owned()
        } else {
            format!("{hours} hours")
        };
        report.mistake(
            at,
            &section.path("to"),
            found,
            "at most 24 hours behind `from`",
            "choose a shorter range",
        );
        return None;
    }
    Some((from_ms, to_ms))
}
