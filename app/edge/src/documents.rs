//! Man pages and completions of the shells, out of the same arguments that the program reads, and the JSON schema of the
//! configuration. Not in the shipped binary: the feature `documents` makes a program that writes them into the folder that `KVS_EDGE_DOCUMENTS` names, and does nothing else.
//! `cargo xtask deb` packages what it writes.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate_to};

/// Of each shell that Debian has completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `man/*.1`, a page for each command, `completions/*`, a file for each shell, and `kvs-edge.schema.json`.
pub(crate) fn write(command: &Command, folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    let name = command.get_name();
    for shell in SHELLS {
        let file = generate_to(shell, &mut command.clone(), name, &completions)?;
        if shell == Shell::Bash {
            fs::write(&file, with_one_name(&fs::read_to_string(&file)?, name))?;
        }
    }
    #[cfg(feature = "documents")]
    fs::write(folder.join("kvs-edge.schema.json"), format!("{:#}\n", config::schema()))?;
    Ok(())
}

/// clap_complete 4.6.12 writes the hyphen of a program's name in two ways, so that bash finds no command by its label.
fn with_one_name(script: &str, name: &str) -> String {
    script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Arguments;

    /// Every command below `command` that is not hidden, as `kvs-edge-kvs-list`, with its last name.
    fn commands(command: &Command, prefix: &str) -> Vec<(String, Command)> {
        let name = format!("{prefix}{}", command.get_name());
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let below = below.flat_map(|below| commands(below, &format!("{name}-")));
        let mut all: Vec<_> = below.collect();
        all.insert(0, (name, command.clone()));
        all
    }

    #[test]
    fn every_command_and_option_has_its_place_in_man_pages_and_completions() {
        let folder = tempfile::tempdir().unwrap();
        let command = Arguments::command();
        write(&command, folder.path()).unwrap();
        let read = |name: &str| {
            let file = folder.path().join(name);
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        let shells =
            ["kvs-edge.bash", "_kvs-edge", "kvs-edge.fish"].map(|name| read(&format!("completions/{name}")));
        // What bash takes a command for is what it then looks up.
        let taken_for =
            shells[0].lines().filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'));
        for label in taken_for.filter(|label| !label.is_empty()) {
            assert!(shells[0].lines().any(|line| line.trim() == format!("{label})")), "no label {label}");
        }
        let commands = commands(&command, "");
        assert!(commands.len() > 20, "{}", commands.len());
        for (name, command) in commands {
            let page = read(&format!("man/{name}.1")).replace('\\', "");
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
            assert!(command.get_about().is_some(), "{name} says not what it does");
            for option in command.get_opts().filter_map(|option| option.get_long()) {
                assert!(page.contains(&format!("--{option}")), "{name} --{option} is not in its page");
                for shell in &shells {
                    assert!(shell.contains(option), "{name} --{option} is not in the completions");
                }
            }
        }
    }
}
