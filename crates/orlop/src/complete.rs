//! Shell completion: scripts for shells, and candidates for `kubectl`.
//!
//! `kubectl` completes a plug-in by running `kubectl_complete-NAME` with the words so far, the last one being completed, and reads
//! candidates, one a line with a description after a tab, and a last line with a colon and a number: what the shell may do besides.

use clap::builder::ValueHint;
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use crate::error::Result;
use crate::output;

/// Print the completion script of a shell
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The shell may offer files when there are no candidates.
const DIRECTIVE_DEFAULT: u8 = 0;
/// The shell must not offer files.
const DIRECTIVE_NO_FILES: u8 = 4;

/// Prints the script.
pub(crate) fn script(args: CompletionArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::print_bytes(&script)
}

/// Prints the candidates in `kubectl`'s form.
pub(crate) fn candidates(mut command: Command, words: &[String]) -> Result<()> {
    command.build();
    output::print(&complete(&command, words))
}

/// The candidates for the last of the words. Pure.
fn complete(root: &Command, words: &[String]) -> String {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let place = Place::find(root, before);
    let (candidates, directive) = place.offers(last);
    let mut text = String::new();
    for (word, description) in candidates {
        if word.starts_with(last) {
            text.push_str(&word);
            if !description.is_empty() {
                text.push_str(&format!("\t{description}"));
            }
            text.push('\n');
        }
    }
    text.push_str(&format!(":{directive}\n"));
    text
}

/// Where in the tree of commands the words have led.
struct Place<'a> {
    command: &'a Command,
    /// The option whose value comes next.
    option: Option<&'a Arg>,
    /// How many positional arguments have been given.
    positionals: usize,
}

impl<'a> Place<'a> {
    fn find(root: &'a Command, words: &[String]) -> Self {
        let mut place = Self { command: root, option: None, positionals: 0 };
        for word in words {
            if place.option.take().is_some() {
                continue;
            }
            if let Some(option) = place.named(word) {
                place.option = takes_value(option).then_some(option);
            } else if let Some(command) = place.command.find_subcommand(word) {
                (place.command, place.positionals) = (command, 0);
            } else if !word.starts_with('-') {
                place.positionals += 1;
            }
        }
        place
    }

    /// The option that a word names, without its value.
    fn named(&self, word: &str) -> Option<&'a Arg> {
        let command = self.command;
        match word.strip_prefix("--") {
            Some(long) => command.get_arguments().find(|arg| arg.get_long() == Some(long)),
            None => {
                let mut letters = word.strip_prefix('-')?.chars();
                let (letter, rest) = (letters.next()?, letters.next());
                command.get_arguments().find(|arg| arg.get_short() == Some(letter)).filter(|_| rest.is_none())
            }
        }
    }

    fn offers(&self, last: &str) -> (Vec<(String, String)>, u8) {
        if let Some(option) = self.option {
            return values(option);
        }
        if last.starts_with('-') {
            let options = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
            let long = |arg: &Arg| Some((format!("--{}", arg.get_long()?), describe(arg.get_help())));
            return (options.filter_map(long).collect(), DIRECTIVE_NO_FILES);
        }
        let (mut candidates, mut directive) = (Vec::new(), DIRECTIVE_NO_FILES);
        if self.positionals == 0 {
            let visible = self.command.get_subcommands().filter(|c| !c.is_hide_set());
            candidates.extend(visible.map(|c| (c.get_name().to_owned(), describe(c.get_about()))));
        }
        if let Some(positional) = self.command.get_positionals().nth(self.positionals) {
            let (more, of_positional) = values(positional);
            candidates.extend(more);
            directive = of_positional;
        }
        (candidates, directive)
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The values that an argument may have, as far as they are known.
fn values(arg: &Arg) -> (Vec<(String, String)>, u8) {
    let known = arg.get_possible_values();
    let candidates =
        known.iter().filter(|v| !v.is_hide_set()).map(|v| (v.get_name().to_owned(), describe(v.get_help()))).collect();
    let files = matches!(arg.get_value_hint(), ValueHint::FilePath | ValueHint::AnyPath | ValueHint::DirPath);
    (candidates, if files { DIRECTIVE_DEFAULT } else { DIRECTIVE_NO_FILES })
}

fn describe(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(|help| help.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn check(words: &[&str], expected: &[&str], directive: u8) {
        let mut command = crate::cli::Cli::command();
        command.build();
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        let text = complete(&command, &words);
        let mut found: Vec<_> = text.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
        assert_eq!(found.pop(), Some(format!(":{directive}").as_str()), "{words:?}");
        for word in expected {
            assert!(found.contains(word), "{words:?}: {word} is not among {found:?}");
        }
        if expected.is_empty() {
            assert!(found.is_empty(), "{words:?}: {found:?}");
        }
    }

    #[test]
    fn the_words_so_far_lead_to_what_may_follow() {
        check(&[""], &["backup", "restore", "location", "repo"], DIRECTIVE_NO_FILES);
        check(&["ba"], &["backup"], DIRECTIVE_NO_FILES);
        check(&["backup", ""], &["create", "list", "show", "delete"], DIRECTIVE_NO_FILES);
        check(&["backup", "-n", "create", ""], &["create", "list"], DIRECTIVE_NO_FILES);
        check(&["backup", "create", "--re"], &["--resource-types", "--reclaim-policy"], DIRECTIVE_NO_FILES);
        check(&["backup", "create", "x", "--reclaim-policy", ""], &["retain", "delete"], DIRECTIVE_NO_FILES);
        check(&["backup", "list", "-o", "j"], &["json"], DIRECTIVE_NO_FILES);
        check(&["backup", "show", "x", ""], &[], DIRECTIVE_NO_FILES);
        check(&["completion", ""], &["bash", "zsh", "fish"], DIRECTIVE_NO_FILES);
        check(&["backup", "list", "--kubeconfig", ""], &[], DIRECTIVE_DEFAULT);
    }
}
