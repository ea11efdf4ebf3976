//! `tidegate completions`: what a shell needs to complete the command line, made from the command line's own definition.

use super::console::Console;
use clap::{Arg, ArgAction, ValueEnum};
use std::fmt::Write as _;

const EXAMPLES: &str = "\
Examples:
  source <(tidegate completions bash)                              in ~/.bashrc
  source <(tidegate completions zsh)                               in ~/.zshrc, after compinit
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

/// Which shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash 4 or newer.
    Bash,
    /// zsh, through its emulation of bash's completion.
    Zsh,
    /// fish.
    Fish,
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn execute(args: &Args, root: clap::Command, console: &mut Console<'_>) -> anyhow::Result<()> {
    console.say(script(args.shell, root).trim_end())
}

/// A command with its place in the tree, as it is typed: `tidegate order ask`.
struct Level {
    path: String,
    children: Vec<(String, String)>,
    flags: Vec<Flag>,
    /// Values of arguments without a name.
    values: Vec<String>,
}

/// A flag.
struct Flag {
    long: String,
    about: String,
    takes_value: bool,
    values: Vec<String>,
}

fn script(shell: Shell, mut root: clap::Command) -> String {
    root.build();
    let mut levels = Vec::new();
    collect(&root, root.get_name(), &mut levels);
    match shell {
        Shell::Bash => bash(&levels),
        Shell::Zsh => format!("autoload -U +X bashcompinit && bashcompinit\n{}", bash(&levels)),
        Shell::Fish => fish(&levels),
    }
}

fn collect(command: &clap::Command, path: &str, levels: &mut Vec<Level>) {
    let shown = || command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help");
    let about = |child: &clap::Command| child.get_about().map(ToString::to_string).unwrap_or_default();
    levels.push(Level {
        path: path.to_owned(),
        children: shown().map(|child| (child.get_name().to_owned(), about(child))).collect(),
        flags: command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(flag).collect(),
        values: command.get_positionals().flat_map(values).collect(),
    });
    for child in shown() {
        collect(child, &format!("{path} {}", child.get_name()), levels);
    }
}

fn flag(arg: &Arg) -> Option<Flag> {
    let long = arg.get_long()?.to_owned();
    let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    Some(Flag { long, about, takes_value, values: if takes_value { values(arg) } else { Vec::new() } })
}

fn values(arg: &Arg) -> Vec<String> {
    let shown = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
    shown.map(|value| value.get_name().to_owned()).collect()
}

/// Single-quoted for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

const BASH_START: &str = "\
_tidegate() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path=tidegate word words=
    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do
        case \"$path $word\" in
";

fn bash(levels: &[Level]) -> String {
    let mut text = BASH_START.to_owned();
    let paths: Vec<String> = levels.iter().skip(1).map(|level| quoted(&level.path)).collect();
    // Writing into a text does not fail.
    let _ = writeln!(text, "            {}) path=\"$path $word\" ;;", paths.join("|"));
    text.push_str("        esac\n    done\n    case \"$path $previous\" in\n");
    for level in levels {
        for flag in level.flags.iter().filter(|flag| flag.takes_value) {
            let at = quoted(&format!("{} --{}", level.path, flag.long));
            let reply = match flag.values.as_slice() {
                [] => "compgen -f -- \"$current\"".to_owned(),
                some => format!("compgen -W {} -- \"$current\"", quoted(&some.join(" "))),
            };
            let _ = writeln!(text, "        {at}) mapfile -t COMPREPLY < <({reply}); return ;;");
        }
    }
    text.push_str("    esac\n    case \"$path\" in\n");
    for level in levels {
        let children = level.children.iter().map(|(name, _)| name.clone());
        let words: Vec<String> = children
            .chain(level.values.iter().cloned())
            .chain(level.flags.iter().map(|flag| format!("--{}", flag.long)))
            .collect();
        let _ = writeln!(text, "        {}) words={} ;;", quoted(&level.path), quoted(&words.join(" ")));
    }
    text.push_str("    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n}\n");
    text.push_str("complete -o default -F _tidegate tidegate\n");
    text
}

const FISH_START: &str = "\
function __tidegate_at
    set -l path tidegate
    for word in (commandline -opc)[2..-1]
        switch \"$path $word\"
";

fn fish(levels: &[Level]) -> String {
    let mut text = FISH_START.to_owned();
    let paths: Vec<String> = levels.iter().skip(1).map(|level| fish_quoted(&level.path)).collect();
    let _ = writeln!(text, "            case {}", paths.join(" "));
    text.push_str(
        "                set path \"$path $word\"\n        end\n    end\n    test \"$path\" = \"$argv\"\nend\n",
    );
    for level in levels {
        let at = format!("complete -c tidegate -n {}", fish_quoted(&format!("__tidegate_at {}", level.path)));
        for (name, about) in &level.children {
            let _ = writeln!(text, "{at} -f -a {} -d {}", fish_quoted(name), fish_quoted(about));
        }
        if !level.values.is_empty() {
            let _ = writeln!(text, "{at} -f -a {}", fish_quoted(&level.values.join(" ")));
        }
        for flag in &level.flags {
            let value = match (flag.takes_value, flag.values.as_slice()) {
                (false, _) => String::new(),
                (true, []) => " -r".to_owned(),
                (true, some) => format!(" -x -a {}", fish_quoted(&some.join(" "))),
            };
            let _ = writeln!(text, "{at} -l {}{value} -d {}", flag.long, fish_quoted(&flag.about));
        }
    }
    text
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}
