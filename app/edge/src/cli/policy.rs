//! `kvs-edge provision policy|cost`: the least that the box must be allowed in AWS, and what reading back costs.

use std::collections::BTreeSet;

use config::{Config, VerifyMode};
use serde_json::{Value, json};

/// Days of a month, for estimates.
const DAYS: f64 = 30.4;
const GB: f64 = 1e9;

/// An IAM policy for this configuration. `provisioning`: also for `kvs-edge provision streams`.
pub(super) fn policy(config: &Config, account: &str, provisioning: bool) -> Value {
    let arns = |wanted: &dyn Fn(&config::Camera) -> bool| -> Vec<String> {
        let region = &config.aws.region;
        let partition = match region.split('-').next() {
            Some("cn") => "aws-cn",
            _ if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let cameras = config.cameras.iter().filter(|camera| camera.enabled && wanted(camera));
        let streams: BTreeSet<_> = cameras.map(|camera| camera.stream.as_str()).collect();
        // Behind the name stands the time at which the stream was made.
        let arn = |stream| format!("arn:{partition}:kinesisvideo:{region}:{account}:stream/{stream}/*");
        streams.into_iter().map(arn).collect()
    };
    let mut statements = vec![
        // What was not confirmed is looked for before it is sent again, whatever is verified.
        (
            "Upload",
            vec!["DescribeStream", "GetDataEndpoint", "GetMediaForFragmentList", "ListFragments", "PutMedia"],
            arns(&|camera| camera.kvs.is_none()),
        ),
        ("ReadBack", vec!["GetMedia"], arns(&|camera| camera.verify.mode != VerifyMode::Off)),
        // Streams that are looked at and not recorded.
        (
            "Watch",
            vec![
                "GetDataEndpoint",
                "GetHLSStreamingSessionURL",
                "GetMedia",
                "GetMediaForFragmentList",
                "ListFragments",
            ],
            arns(&|camera| camera.kvs.is_some()),
        ),
    ];
    if provisioning {
        statements.push((
            "Provision",
            vec!["CreateStream", "UpdateDataRetention"],
            arns(&|camera| camera.kvs.is_none()),
        ));
    }
    let statement = |(name, actions, arns): (&str, Vec<&str>, Vec<String>)| {
        let actions: Vec<_> = actions.iter().map(|action| format!("kinesisvideo:{action}")).collect();
        json!({ "Sid": name, "Effect": "Allow", "Action": actions, "Resource": arns })
    };
    let statements: Vec<_> =
        statements.into_iter().filter(|(.., arns)| !arns.is_empty()).map(statement).collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// What a GB costs, in dollars, as whoever asks assumes it: AWS is not asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prices {
    pub(super) ingest: f64,
    pub(super) read: f64,
    /// For a month.
    pub(super) store: f64,
}

/// GB a month of one camera at `mbit` Mbit/s, sent and read back.
fn volumes(camera: &config::Camera, mbit: f64) -> (f64, f64) {
    let sent = mbit * 1e6 / 8.0 * 86_400.0 * DAYS / GB;
    let read = match camera.verify.mode {
        VerifyMode::Continuous => sent,
        VerifyMode::Sampled => {
            let share = camera.upload.fragment.as_secs_f64() / camera.verify.sample_every.as_secs_f64();
            sent * share.min(1.0)
        }
        VerifyMode::Off => 0.0,
    };
    (sent, read)
}

/// A table of what each camera costs a month, by the way it is read back, where everything is uploaded.
pub(super) fn cost(config: &Config, mbit: f64, retention_hours: f64, prices: Prices) -> String {
    use std::fmt::Write as _;
    let mut text = format!("dollars a month at {mbit} Mbit/s, {retention_hours} h of retention\n");
    let Prices { ingest, read, store } = prices;
    let _ = writeln!(
        text,
        "assumed, not asked of AWS: {ingest} for a GB sent (--ingest), {read} read back (--read), {store} stored for a month \
         (--store); the price list of your region has the real ones"
    );
    let row = |name: &str, cells: [&str; 4]| {
        let [ingest, store, read, all] = cells;
        format!("{name:<24} {ingest:>9} {store:>9} {read:>9} {all:>9}\n")
    };
    text += &row("camera", ["ingest", "storage", "read back", "sum"]);
    let mut sum = 0.0;
    for camera in config.cameras.iter().filter(|camera| camera.enabled && camera.kvs.is_none()) {
        let (sent, read) = volumes(camera, mbit);
        let stored = sent / (24.0 * DAYS) * retention_hours;
        let (ingest, store, read) = (sent * prices.ingest, stored * prices.store, read * prices.read);
        let all = ingest + store + read;
        sum += all;
        let mode = match camera.verify.mode {
            VerifyMode::Continuous => "continuous",
            VerifyMode::Sampled => "sampled",
            VerifyMode::Off => "off",
        };
        let cells = [ingest, store, read, all].map(|cell| format!("{cell:.2}"));
        text += &row(&format!("{} ({mode})", camera.id), [&cells[0], &cells[1], &cells[2], &cells[3]]);
    }
    let _ = writeln!(text, "{:<24} {:>39.2}", "all", sum);
    text
}

#[cfg(test)]
mod tests {
    use config::Environment;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes(), &Environment::default()).expect("it is good")
    }

    const TWO: &str = "[aws]\nregion = \"eu-west-1\"\n[[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.1/a\"\n\
        [camera.verify]\nmode = \"continuous\"\n[[camera]]\nid = \"dock\"\nurl = \"rtsp://192.0.2.2/a\"\n\
        [camera.verify]\nmode = \"off\"\n[[camera]]\nid = \"old\"\nurl = \"rtsp://192.0.2.3/a\"\nenabled = false\n";

    #[test]
    fn the_policy_names_the_streams_and_no_more_than_is_used() {
        let found = policy(&config(TWO), "123456789012", false);
        let arn = |stream| format!("arn:aws:kinesisvideo:eu-west-1:123456789012:stream/{stream}/*");
        assert_eq!(found["Statement"][0]["Resource"], json!([arn("dock"), arn("gate")]));
        let expected = json!([
            "kinesisvideo:DescribeStream",
            "kinesisvideo:GetDataEndpoint",
            "kinesisvideo:GetMediaForFragmentList",
            "kinesisvideo:ListFragments",
            "kinesisvideo:PutMedia"
        ]);
        assert_eq!(found["Statement"][0]["Action"], expected);
        assert_eq!(found["Statement"][1]["Action"], json!(["kinesisvideo:GetMedia"]));
        assert_eq!(found["Statement"][1]["Resource"], json!([arn("gate")]));
        assert_eq!(found["Statement"].as_array().map(Vec::len), Some(2));
        let off = config(&TWO.replace("continuous", "off").replace("eu-west-1", "cn-north-1"));
        let found = policy(&off, "1", true);
        assert_eq!(found["Statement"].as_array().map(Vec::len), Some(2), "nobody reads back");
        assert_eq!(found["Statement"][1]["Sid"], "Provision");
        assert!(found.to_string().contains("arn:aws-cn:kinesisvideo:cn-north-1:1:"), "{found}");
    }

    #[test]
    fn the_cost_follows_the_volume() {
        let config = config(TWO);
        let (sent, read) = volumes(&config.cameras[0], 4.0);
        assert!((sent - 1313.28).abs() < 0.01 && (read - sent).abs() < 0.01, "{sent} {read}");
        let mut sampled = config.cameras[0].clone();
        sampled.verify.mode = VerifyMode::Sampled;
        assert!((volumes(&sampled, 4.0).1 - sent / 30.0).abs() < 0.01, "2 s of each minute");
        let text = cost(&config, 4.0, 24.0, Prices { ingest: 0.01, read: 0.01, store: 0.02 });
        let gate = text.lines().find(|line| line.starts_with("gate (continuous)")).expect("a line");
        let cells: Vec<_> = gate.split_whitespace().skip(2).collect();
        assert_eq!(cells, ["13.13", "0.86", "13.13", "27.13"], "{text}");
        assert!(!text.contains("old"), "{text}");
        assert!(text.contains("assumed") && text.contains("0.02 stored for a month (--store)"), "{text}");
    }
}
