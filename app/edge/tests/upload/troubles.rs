//! Troubles between the box and KVS: each has a name of its own, and is over by itself once its cause is.

use std::collections::BTreeSet;
use std::time::Duration;

use health::{Problem, Reason};
use kvs_edge::record::UploadState;
use kvs_local::FaultKind;

use crate::upload_rig::{Rig, Setting};

const SECOND: Duration = Duration::from_secs(1);

struct Trouble {
    reason: Reason,
    /// In what is told, with what to do about it.
    says: &'static [&'static str],
    setting: fn(&mut Setting),
    begins: fn(&Rig),
    ends: fn(&Rig),
}

fn refusals(rig: &Rig, error_type: &str, status: u16) {
    let error_type = error_type.to_owned();
    rig.inject(FaultKind::RefusePutMedia { error_type, status, count: 1_000_000 });
    rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
}

fn no_more_faults(rig: &Rig) {
    rig.kvs.faults().clear();
}

const TROUBLES: [Trouble; 12] = [
    Trouble {
        reason: Reason::DnsFailed,
        says: &["does not resolve", "name server"],
        setting: |_| (),
        begins: |rig| {
            rig.network.names(false);
            rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        },
        ends: |rig| rig.network.names(true),
    },
    Trouble {
        reason: Reason::TlsFailed,
        says: &["TLS with", "certificate", "aws.ca_file"],
        setting: |setting| setting.tls = true,
        begins: |rig| {
            rig.network.intercepted(true);
            rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        },
        ends: |rig| rig.network.intercepted(false),
    },
    Trouble {
        reason: Reason::Unreachable,
        says: &["no connection", "route and firewall"],
        setting: |_| (),
        begins: |rig| {
            rig.network.down(true);
            rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        },
        ends: |rig| rig.network.down(false),
    },
    // Nothing is taken any more.
    Trouble {
        reason: Reason::StaleConnection,
        says: &["took no byte for 5 s", "firewall"],
        setting: |setting| setting.write_timeout = SECOND * 5,
        begins: |rig| rig.network.freeze(),
        ends: |_| (),
    },
    // Whatever waits for its place does not count, and no ack comes.
    Trouble {
        reason: Reason::StaleConnection,
        says: &["no ack for 10 s", "firewall"],
        setting: |setting| (setting.write_timeout, setting.ack_timeout) = (SECOND * 600, SECOND * 10),
        begins: |rig| rig.network.freeze(),
        ends: |_| (),
    },
    Trouble {
        reason: Reason::SlowLink,
        says: &["kbit/s that the camera delivers", "uplink"],
        setting: |_| (),
        begins: |rig| rig.inject(FaultKind::SlowReader { pause_ms: 900 }),
        ends: no_more_faults,
    },
    Trouble {
        reason: Reason::EndpointChanged,
        says: &["InvalidEndpointException"],
        setting: |setting| setting.asks_endpoint = true,
        begins: |rig| refusals(rig, "InvalidEndpointException", 400),
        ends: no_more_faults,
    },
    Trouble {
        reason: Reason::Throttled,
        says: &["ClientLimitExceededException", "too often"],
        setting: |_| (),
        begins: |rig| refusals(rig, "ClientLimitExceededException", 400),
        ends: no_more_faults,
    },
    Trouble {
        reason: Reason::StreamBusy,
        says: &["somebody else sends to stream cam"],
        setting: |_| (),
        begins: |rig| refusals(rig, "ConnectionLimitExceededException", 400),
        ends: no_more_faults,
    },
    Trouble {
        reason: Reason::TokenExpired,
        says: &["expired", "replace it"],
        setting: |setting| setting.credentials_last = Some(SECOND * 60),
        begins: |rig| {
            rig.renew_keys(false);
            rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        },
        ends: |rig| rig.renew_keys(true),
    },
    Trouble {
        reason: Reason::AccountLimit,
        says: &["AccountStreamLimitExceededException", "higher quota"],
        setting: |_| (),
        begins: |rig| refusals(rig, "AccountStreamLimitExceededException", 400),
        ends: no_more_faults,
    },
    Trouble {
        reason: Reason::UploadFailed,
        says: &["ServiceUnavailable"],
        setting: |_| (),
        begins: |rig| refusals(rig, "ServiceUnavailable", 503),
        ends: no_more_faults,
    },
];

#[tokio::test(start_paused = true)]
async fn each_trouble_has_its_own_name_and_is_over_by_itself() {
    let mut names = BTreeSet::new();
    for Trouble { reason, says, setting: change, begins, ends } in TROUBLES {
        let mut setting = Setting::default();
        change(&mut setting);
        let mut rig = Rig::start(setting).await;
        // Longer than the first credentials last.
        rig.film(65).await;
        assert_eq!(rig.report.borrow().told(), None, "{reason}");
        let endpoints = rig.endpoint_calls();
        begins(&rig);
        let mut told = None;
        for _ in 0..120 {
            rig.film(1).await;
            let is_it = |problem: &&Problem| {
                let text = problem.to_string();
                problem.reason == reason && says.iter().all(|word| text.contains(word))
            };
            told = rig.report.borrow().told().filter(is_it).cloned();
            if told.is_some() {
                break;
            }
        }
        assert!(told.is_some(), "{reason}, {says:?}: {:?}", rig.report.borrow());
        names.insert(reason);
        ends(&rig);
        rig.film(150).await;
        let report = rig.report.borrow().clone();
        assert_eq!((report.told(), report.state), (None, UploadState::Sending), "{reason}");
        if reason == Reason::EndpointChanged {
            assert!(rig.endpoint_calls() > endpoints, "it asks where the stream is served now");
        }
        rig.expect_all_kept().await;
    }
    assert_eq!(names.len(), TROUBLES.len() - 1, "two ways to be stale");
}
