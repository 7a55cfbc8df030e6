//! `kvs-edge provision streams`: the cameras' streams, created and with a retention.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::policy;
use clap::{Args, Subcommand, value_parser};
use clock::Clock;
use config::Config;
use kvs_client::kvs::api::StreamId;
use kvs_client::{Client, Error, Retention, ServiceErrorKind};

#[derive(Subcommand)]
pub(crate) enum Provision {
    /// Create the Kinesis video streams of all cameras in the configuration, and set how long they keep footage.
    ///
    /// Can be repeated: what is right already stays as it is. A retention is raised, never lowered, since lowering it
    /// drops recordings.
    Streams(StreamsArguments),
    /// Print the IAM policy with the least rights that this configuration needs.
    Policy(PolicyArguments),
    /// Estimate what uploading and reading back cost a month.
    Cost(CostArguments),
}

#[derive(Args)]
pub(crate) struct PolicyArguments {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// The account of the streams, 12 digits.
    #[arg(long, default_value = "*")]
    account: String,
    /// Also what `kvs-edge provision streams` needs.
    #[arg(long)]
    with_provisioning: bool,
}

#[derive(Args)]
pub(crate) struct CostArguments {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// Of each camera, in Mbit/s.
    #[arg(long, default_value_t = 4.0)]
    mbit: f64,
    /// Retention of the streams.
    #[arg(long, default_value_t = 24.0)]
    retention_hours: f64,
    /// Dollars for each GB sent. The defaults are assumptions, near the list prices of us-east-1 at some time: prices change, and
    /// differ by region. Give those of your region's price list.
    #[arg(long, default_value_t = 0.0085)]
    ingest: f64,
    /// Dollars for each GB read back.
    #[arg(long, default_value_t = 0.0085)]
    read: f64,
    /// Dollars for each GB stored for a month.
    #[arg(long, default_value_t = 0.023)]
    store: f64,
}

#[derive(Args)]
pub(crate) struct StreamsArguments {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// Least retention of every stream. Without it new streams and those that keep nothing get 24 h.
    #[arg(long, value_parser = value_parser!(u32).range(1..=87_600))]
    retention_hours: Option<u32>,
    /// Only say what is there.
    #[arg(long, conflicts_with = "retention_hours")]
    show: bool,
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) async fn run(command: Provision) -> ExitCode {
    let path = match &command {
        Provision::Streams(StreamsArguments { config, .. })
        | Provision::Policy(PolicyArguments { config, .. })
        | Provision::Cost(CostArguments { config, .. }) => config,
    };
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{}", errors.to_string().trim_end());
            return ExitCode::FAILURE;
        }
    };
    let arguments = match command {
        Provision::Streams(arguments) => arguments,
        Provision::Policy(arguments) => {
            let policy = policy::policy(&config, &arguments.account, arguments.with_provisioning);
            println!("{policy:#}");
            return ExitCode::SUCCESS;
        }
        Provision::Cost(CostArguments { mbit, retention_hours, ingest, read, store, .. }) => {
            print!(
                "{}",
                policy::cost(&config, mbit, retention_hours, policy::Prices { ingest, read, store })
            );
            return ExitCode::SUCCESS;
        }
    };
    let upload = config::Upload::default();
    let client = match kvs_edge::aws::client(&config.aws, &upload, Clock::system()).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{}", health::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let names: BTreeSet<&str> = config.cameras.iter().map(|camera| camera.stream.as_str()).collect();
    let what = if arguments.show { What::Show } else { What::Provide(arguments.retention_hours) };
    match streams(&client, names, what, &mut io::stdout(), &mut io::stderr()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Clone, Copy)]
enum What {
    Show,
    Provide(Option<u32>),
}

/// A line for each stream; returns how many are not as they should be.
async fn streams(
    client: &Client,
    names: impl IntoIterator<Item = &str>,
    what: What,
    out: &mut impl Write,
    problems: &mut impl Write,
) -> io::Result<usize> {
    let mut failed = 0;
    for name in names {
        let told = match what {
            What::Show => show(client, name).await,
            What::Provide(retention_hours) => provide(client, name, retention_hours).await,
        };
        match told {
            Ok((text, ready)) => {
                failed += usize::from(!ready);
                writeln!(out, "{name}: {text}")?;
            }
            Err(error) => {
                failed += 1;
                let advice = error.advice(client, Some(&StreamId::name(name)));
                let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
                writeln!(problems, "{name}: {}{advice}", health::chain(&error))?;
            }
        }
    }
    Ok(failed)
}

/// What is there, and whether footage would be kept.
async fn show(client: &Client, name: &str) -> Result<(String, bool), Error> {
    match client.describe_stream(&StreamId::name(name)).await {
        Ok(info) => {
            let (hours, status) = (info.data_retention_in_hours, info.status);
            Ok((format!("{status:?}, retention {hours} h, {}", info.stream_arn), hours > 0))
        }
        Err(error) if error.service_kind() == Some(&ServiceErrorKind::ResourceNotFound) => {
            Ok(("missing; create it with `kvs-edge provision streams`".to_owned(), false))
        }
        Err(error) => Err(error),
    }
}

async fn provide(client: &Client, name: &str, retention_hours: Option<u32>) -> Result<(String, bool), Error> {
    let done = client.provision_stream(name, retention_hours).await?;
    let found = if done.created { "created" } else { "was there" };
    let retention = match done.retention {
        Retention::Kept { hours } if done.created => format!("retention {hours} h"),
        Retention::Kept { hours } => format!("retention {hours} h, left as it is"),
        Retention::Raised { from_hours, to_hours } => {
            format!("retention raised from {from_hours} h to {to_hours} h")
        }
    };
    Ok((format!("{found}, {retention}, {}", done.info.stream_arn), true))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kvs_client::{SharedDialler, static_credentials};
    use kvs_local::{Fault, FaultKind, KvsLocal, Options};

    use super::*;

    async fn told(client: &Client, names: &[&str], what: What) -> (usize, String, String) {
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let failed = streams(client, names.iter().copied(), what, &mut out, &mut problems).await;
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (failed.expect("written"), text(out), text(problems))
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_created_raised_and_shown_and_a_second_time_nothing_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path()).stream("empty", 0).stream("short", 2);
        options.create_delay = Duration::from_secs(7);
        let server = KvsLocal::start_in_memory(options).await.expect("starts");
        let mut config = kvs_client::Config::new(
            "us-west-2",
            static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None),
        );
        config.endpoints.control = Some(server.endpoint().parse().expect("an endpoint"));
        let connector = server.connector();
        config.dialler = SharedDialler::from_fn(move |_, _| std::future::ready(connector.connect(65_536)));
        let client = Client::new(config).expect("built");
        let names = ["new", "empty", "short"];

        let (failed, out, _) = told(&client, &names, What::Show).await;
        assert_eq!(failed, 2, "the missing one and the one that keeps nothing");
        assert!(out.starts_with("new: missing; create it with `kvs-edge provision streams`\n"), "{out}");
        assert!(out.contains("empty: Active, retention 0 h, arn:aws:kinesisvideo:us-west-2:"), "{out}");

        let (failed, out, problems) = told(&client, &names, What::Provide(None)).await;
        assert_eq!((failed, problems.as_str()), (0, ""));
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("new: created, retention 24 h, arn:"), "{out}");
        assert!(lines[1].starts_with("empty: was there, retention raised from 0 h to 24 h, arn:"), "{out}");
        assert!(lines[2].starts_with("short: was there, retention 2 h, left as it is, arn:"), "{out}");

        let (failed, again, _) = told(&client, &names, What::Provide(None)).await;
        assert_eq!(failed, 0);
        assert!(again.lines().all(|line| line.contains(" h, left as it is, arn:")), "{again}");
        let (_, raised, _) = told(&client, &["short", "new"], What::Provide(Some(48))).await;
        assert!(raised.contains("raised from 2 h to 48 h") && raised.contains("raised from 24 h to 48 h"));
        let (_, kept, _) = told(&client, &["short"], What::Provide(Some(1))).await;
        assert!(kept.contains("retention 48 h, left as it is"), "never lowered: {kept}");

        let refusal = FaultKind::Refuse {
            path: "/describeStream".to_owned(),
            error_type: "AccessDeniedException".to_owned(),
            status: 403,
            count: 1,
        };
        server.faults().inject(Fault::any(refusal));
        let (failed, out, problems) = told(&client, &["new", "short"], What::Show).await;
        assert_eq!(failed, 1, "the others are shown");
        assert!(out.starts_with("short: "), "{out}");
        assert!(problems.starts_with("new: DescribeStream refused: 403 AccessDeniedException"), "{problems}");
        let pattern =
            "allow the action kinesisvideo:DescribeStream on arn:aws:kinesisvideo:us-west-2:*:stream/new/* ";
        assert!(problems.contains(pattern), "{problems}");
    }
}
